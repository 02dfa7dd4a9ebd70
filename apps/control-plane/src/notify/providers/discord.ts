import { z } from 'zod'
import { readFields, readProviderUrl } from '../fields.js'
import { fieldOf, judge, numberOf, reasonOf } from '../judge.js'
import type { Answer, Provider } from '../provider.js'
import { asLines, chatText } from '../text.js'

const form = {
  host: /^(?:(?:ptb|canary)\.)?discord(?:app)?\.com$/,
  path: /^\/api\/(?:v\d+\/)?webhooks\/\d+\/[\w-]+$/,
  example: 'https://discord.com/api/webhooks/{id}/{token}',
}
/** https://discord.com/developers/docs/resources/webhook#execute-webhook */
const MAX_CHARACTERS = 2_000
const SUPPRESS_EMBEDS = 4

/** Webhooks of Discord. Without a version in the path the times of its rate limits are in another unit, so there always is one. */
export const discord: Provider = {
  concurrency: 1,
  parse(config, guard) {
    const { webhook_url } = readFields({ webhook_url: z.string() }, config)
    const url = readProviderUrl(webhook_url, form, guard)
    url.pathname = url.pathname.replace(/^\/api\/(?:v\d+\/)?/, '/api/v10/')
    return { webhook_url: url.href }
  },
  target: ({ webhook_url = '' }) => new URL(webhook_url).host,
  secrets: ({ webhook_url = '' }) => [new URL(webhook_url).pathname.split('/').at(-1) ?? ''],
  request({ webhook_url = '' }, message) {
    const url = new URL(webhook_url)
    const content = asLines(chatText(message), escapeMarkdown).slice(0, MAX_CHARACTERS)
    return {
      method: 'POST',
      url,
      shownUrl: `${url.origin}${url.pathname.replace(/[^/]+$/, '***')}`,
      headers: { 'content-type': 'application/json' },
      // Names are text of others: nobody is called by them.
      body: JSON.stringify({ content, allowed_mentions: { parse: [] }, flags: SUPPRESS_EMBEDS }),
    }
  },
  judge(answer) {
    const seconds = numberOf(answer, 'retry_after')
    const verdict = judge(answer, {
      refused: [400, 413],
      gone: [401, 403, 404],
      said: fieldOf(answer, 'message'),
      afterMs: seconds === undefined ? undefined : seconds * 1000,
    })
    return verdict.kind === 'delivered' ? { kind: 'delivered', pauseMs: pauseMs(answer) } : withCode(verdict, answer)
  },
}

/** What its limits leave: nothing until then. */
function pauseMs({ headers }: Answer): number | undefined {
  const seconds = Number(headers['x-ratelimit-reset-after'])
  return headers['x-ratelimit-remaining'] === '0' && seconds > 0 ? seconds * 1000 : undefined
}

/** A 404 without a code of Discord's own is of something on the way to it. */
function withCode(verdict: ReturnType<typeof judge>, answer: Answer): ReturnType<typeof judge> {
  if (verdict.kind !== 'gone' || numberOf(answer, 'code') !== undefined) return verdict
  return { kind: 'later', reason: reasonOf(answer), isRate: false }
}

function escapeMarkdown(text: string): string {
  return text.replaceAll(/[\\*_~`|>#[\]()<@:-]/g, '\\$&')
}
