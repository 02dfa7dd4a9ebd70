import { byWebhookUrl } from '../fields.js'
import { fieldOf, judge } from '../judge.js'
import type { Provider } from '../provider.js'
import { chatText, escapeHtml } from '../text.js'

const form = {
  host: /^chat\.googleapis\.com$/,
  path: /^\/v1\/spaces\/[\w-]+\/messages$/,
  example: 'https://chat.googleapis.com/v1/spaces/{space}/messages?key={key}&token={token}',
}

/**
 * Incoming webhooks of Google Chat. Text of a message has marks that cannot be escaped, `<users/all>` among them; that of a card is HTML. Who asks twice
 * with one `requestId` gets one message. A space takes one message a second, and an answer says not when it does again.
 */
export const googleChat: Provider = {
  ...byWebhookUrl(form),
  secrets: ({ webhook_url = '' }) => {
    const { searchParams } = new URL(webhook_url)
    return [searchParams.get('key') ?? '', searchParams.get('token') ?? ''].filter((text) => text !== '')
  },
  request({ webhook_url = '' }, message) {
    const url = new URL(webhook_url)
    url.searchParams.set('requestId', message.id)
    const { summary, lines } = chatText(message)
    const widgets = lines.map(([name, value]) => ({ textParagraph: { text: `<b>${name}</b> ${escapeHtml(value)}` } }))
    const card = { header: { title: summary }, sections: [{ widgets }] }
    return {
      method: 'POST',
      url,
      shownUrl: `${url.origin}${url.pathname}`,
      headers: { 'content-type': 'application/json; charset=UTF-8' },
      body: JSON.stringify({ cardsV2: [{ cardId: 'event', card }] }),
    }
  },
  judge: (answer) =>
    judge(answer, { refused: [400, 413], gone: [401, 403, 404], said: fieldOf(answer, 'error', 'message') }),
}
