import { z } from 'zod'
import { readFields, readUrl } from '../fields.js'
import { fieldOf, judge, numberOf, reasonOf } from '../judge.js'
import type { Provider } from '../provider.js'
import { chatText, escapeHtml } from '../text.js'

const API = 'https://api.telegram.org'

/** A bot of Telegram, https://core.telegram.org/bots/api#sendmessage. */
export const telegram: Provider = {
  concurrency: 1,
  parse(config, guard) {
    const fields = readFields(
      {
        bot_token: z.string().regex(/^\d+:[\w-]{20,}$/, 'must be what BotFather gave, such as 123456:ABC-…'),
        chat_id: z.string().regex(/^(?:-?\d{1,20}|@\w{5,32})$/, 'must be a number or @name'),
        api_url: z.string().default(API),
      },
      config,
    )
    const { origin, pathname } = readUrl('api_url', fields.api_url, guard)
    return { ...fields, api_url: (origin + pathname).replace(/\/+$/, '') }
  },
  target: ({ api_url = API }) => new URL(api_url).host,
  secrets: ({ bot_token = '' }) => [bot_token],
  request({ api_url = API, bot_token = '', chat_id = '' }, message) {
    const { summary, lines } = chatText(message)
    const text = [
      `<b>${escapeHtml(summary)}</b>`,
      ...lines.map(([name, value]) => `${name}: ${escapeHtml(value)}`),
    ].join('\n')
    return {
      method: 'POST',
      url: new URL(`${api_url}/bot${bot_token}/sendMessage`),
      shownUrl: `${api_url}/bot***/sendMessage`,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ chat_id, text, parse_mode: 'HTML', link_preview_options: { is_disabled: true } }),
    }
  },
  judge(answer) {
    const seconds = numberOf(answer, 'parameters', 'retry_after')
    const said = fieldOf(answer, 'description')
    const verdict = judge(answer, {
      refused: [413],
      gone: [401, 403, 404],
      said,
      afterMs: seconds === undefined ? undefined : seconds * 1000,
    })
    if (answer.status === 400) {
      // The chat itself, and not what is said in it.
      const isChat = numberOf(answer, 'parameters', 'migrate_to_chat_id') !== undefined || /chat/i.test(String(said))
      return { kind: isChat ? 'gone' : 'refused', reason: reasonOf(answer, said) }
    }
    if (verdict.kind === 'delivered' && fieldOf(answer, 'ok') !== true) {
      return { kind: 'later', reason: reasonOf(answer, said), isRate: false }
    }
    return verdict
  },
}
