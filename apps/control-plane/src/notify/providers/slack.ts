import { byWebhookUrl } from '../fields.js'
import { judge } from '../judge.js'
import type { Provider } from '../provider.js'
import { asLines, chatText, escapeHtml } from '../text.js'

const form = {
  host: /^hooks\.slack(?:-gov)?\.com$/,
  path: /^\/services\/[\w-]+\/[\w-]+\/[\w-]+$/,
  example: 'https://hooks.slack.com/services/{team}/{app}/{token}',
}

/** Incoming webhooks of Slack, https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks. */
export const slack: Provider = {
  ...byWebhookUrl(form),
  secrets: ({ webhook_url = '' }) => [new URL(webhook_url).pathname.split('/').at(-1) ?? ''],
  request({ webhook_url = '' }, message) {
    const url = new URL(webhook_url)
    const text = asLines(chatText(message), escapeHtml)
    return {
      method: 'POST',
      url,
      shownUrl: `${url.origin}/services/***`,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text, mrkdwn: false, unfurl_links: false, unfurl_media: false }),
    }
  },
  // Its 403, 404 and 410 are `invalid_token`, `no_service`, `channel_is_archived` and the like: somebody has to do something.
  judge: (answer) => judge(answer, { refused: [400, 413], gone: [403, 404, 410] }),
}
