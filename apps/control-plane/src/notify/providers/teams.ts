import { byWebhookUrl } from '../fields.js'
import { fieldOf, judge } from '../judge.js'
import type { Provider } from '../provider.js'
import { chatText } from '../text.js'

const form = {
  host: /^[a-z0-9.-]+\.(?:logic\.azure\.(?:com|us)|api\.powerplatform\.(?:com|us))$/,
  path: /^\/(?:workflows|powerautomate)\/.+/,
  example: 'https://{…}.logic.azure.com/workflows/{…}, or the URL at {…}.api.powerplatform.com that a workflow shows',
}

/**
 * A workflow of Microsoft Teams with the trigger "When a Teams webhook request is received". It takes cards and nothing else. Text runs are
 * the one kind of text in a card that has no Markdown.
 */
export const teams: Provider = {
  ...byWebhookUrl(form),
  secrets: ({ webhook_url = '' }) => {
    const { pathname, searchParams } = new URL(webhook_url)
    return [searchParams.get('sig') ?? '', pathname].filter((text) => text.length > 1)
  },
  request({ webhook_url = '' }, message) {
    const url = new URL(webhook_url)
    const { summary, lines } = chatText(message)
    const run = (text: string, more: object = {}) => ({ type: 'TextRun', text, ...more })
    const block = (...inlines: readonly object[]) => ({ type: 'RichTextBlock', inlines })
    const content = {
      $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
      type: 'AdaptiveCard',
      version: '1.4',
      body: [
        block(run(summary, { weight: 'Bolder' })),
        ...lines.map(([name, value]) => block(run(`${name}: `, { isSubtle: true }), run(value))),
      ],
    }
    const attachment = { contentType: 'application/vnd.microsoft.card.adaptive', contentUrl: null, content }
    return {
      method: 'POST',
      url,
      shownUrl: `${url.origin}/***`,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ type: 'message', attachments: [attachment] }),
    }
  },
  judge: (answer) =>
    judge(answer, { refused: [400, 413], gone: [401, 403, 404], said: fieldOf(answer, 'error', 'message') }),
}
