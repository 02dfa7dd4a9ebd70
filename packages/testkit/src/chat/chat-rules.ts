import type { ChatAnswer, ChatRequest, ChatRules } from './chat-server.js'

type Json = Readonly<Record<string, unknown>>

function jsonOf({ body }: ChatRequest): Json {
  const value: unknown = JSON.parse(body)
  return isObject(value) ? value : {}
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const refusal = (status: number, body: unknown): { readonly refusal: ChatAnswer } => ({ refusal: { status, body } })
const isAt = ({ method, url }: ChatRequest, wanted: string, path: string): boolean =>
  method === wanted && url.pathname === path
const entities: Readonly<Record<string, string>> = { '&amp;': '&', '&lt;': '<', '&gt;': '>' }
const decoded = (text: string): string => text.replaceAll(/&(?:amp|lt|gt);/g, (each) => entities[each] ?? each)

const DISCORD_PATH = '/api/v10/webhooks/1234567890/dGhlLXRva2Vu-discord_x'

/** https://discord.com/developers/docs/resources/webhook#execute-webhook and …/topics/rate-limits */
const discord: ChatRules = {
  config: (origin) => ({ webhook_url: `${origin}${DISCORD_PATH.replace('/v10', '')}` }),
  take(request) {
    if (!isAt(request, 'POST', DISCORD_PATH)) return refusal(404, { message: 'Unknown Webhook', code: 10015 })
    const { content, allowed_mentions: allowed } = jsonOf(request)
    const isBad = typeof content !== 'string' || content === '' || [...content].length > 2000
    if (isBad) return refusal(400, { message: 'Invalid Form Body', code: 50035, errors: {} })
    const mayCall = !isObject(allowed) || !Array.isArray(allowed.parse) || allowed.parse.length > 0
    const shown = content.replaceAll(
      /\\([^a-zA-Z0-9\s])|(@everyone|<@\d+>)|([*_~`|]{1,3})/g,
      (whole, plain, call, mark) => {
        if (plain !== undefined) return plain
        if (call !== undefined) return mayCall ? `[call]${call}` : call
        return mark === undefined ? whole : `[mark]`
      },
    )
    return { shown }
  },
  success: {
    status: 204,
    headers: { 'x-ratelimit-limit': '5', 'x-ratelimit-remaining': '4', 'x-ratelimit-reset-after': '2' },
  },
  rateLimit: (afterSec) => ({
    status: 429,
    headers: { 'retry-after': String(Math.ceil(afterSec)), 'x-ratelimit-scope': 'shared' },
    body: { message: 'The resource is being rate limited.', retry_after: afterSec, global: false },
  }),
  gone: { status: 404, body: { message: 'Unknown Webhook', code: 10015 } },
}

const SLACK_PATH = '/services/T0000/B0000/c2xhY2stdG9rZW4'

/** https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks and …/formatting-message-text */
const slack: ChatRules = {
  config: (origin) => ({ webhook_url: origin + SLACK_PATH }),
  take(request) {
    if (!isAt(request, 'POST', SLACK_PATH)) return refusal(404, 'no_service')
    const { text, mrkdwn } = jsonOf(request)
    if (typeof text !== 'string') return refusal(400, 'invalid_payload')
    if (text === '') return refusal(400, 'no_text')
    const called = text.replaceAll(/<([^>]*)>/g, '[call]$1')
    return { shown: decoded(mrkdwn === false ? called : called.replaceAll(/[*_~`]/g, '[mark]')) }
  },
  success: { status: 200, body: 'ok' },
  rateLimit: (afterSec) => ({
    status: 429,
    headers: { 'retry-after': String(Math.ceil(afterSec)) },
    body: 'rate_limited',
  }),
  gone: { status: 410, body: 'channel_is_archived' },
}

const TEAMS_PATH = '/workflows/0123456789abcdef/triggers/manual/paths/invoke'
const MAX_TEAMS_BYTES = 28 * 1024

/** https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook and the schema of cards */
const teams: ChatRules = {
  config: (origin) => ({
    webhook_url: `${origin}${TEAMS_PATH}?api-version=2016-06-01&sp=%2Ftriggers&sv=1.0&sig=c2ln-teams_secret`,
  }),
  take(request) {
    const isIn = isAt(request, 'POST', TEAMS_PATH) && request.url.searchParams.get('sig') === 'c2ln-teams_secret'
    if (!isIn)
      return refusal(401, { error: { code: 'DirectApiAuthorizationRequired', message: 'The request is not signed.' } })
    if (request.body.length > MAX_TEAMS_BYTES)
      return refusal(413, { error: { code: 'RequestEntityTooLarge', message: 'too large' } })
    const { type, attachments } = jsonOf(request)
    const first: unknown = Array.isArray(attachments) ? attachments[0] : undefined
    const content =
      isObject(first) && first.contentType === 'application/vnd.microsoft.card.adaptive' ? first.content : undefined
    if (type !== 'message' || !isObject(content) || content.type !== 'AdaptiveCard' || !Array.isArray(content.body)) {
      return refusal(400, { error: { code: 'TriggerInputSchemaMismatch', message: 'The input body does not match.' } })
    }
    return { shown: content.body.map(blockText).join('\n') }
  },
  success: { status: 202 },
  rateLimit: (afterSec) => ({
    status: 429,
    headers: { 'retry-after': String(Math.ceil(afterSec)) },
    body: { error: { code: 'WorkflowRunActionsThrottled', message: 'Too many requests.' } },
  }),
  gone: { status: 404, body: { error: { code: 'WorkflowNotFound', message: 'The workflow could not be found.' } } },
}

/** Text blocks read Markdown, text runs do not. */
function blockText(block: unknown): string {
  if (!isObject(block)) return ''
  if (block.type === 'TextBlock') return String(block.text).replaceAll(/[*_[\]]/g, '[mark]')
  const inlines: readonly unknown[] = Array.isArray(block.inlines) ? block.inlines : []
  return inlines.map((run) => (isObject(run) && run.type === 'TextRun' ? String(run.text) : '')).join('')
}

const GOOGLE_PATH = '/v1/spaces/AAAAxyz/messages'

/** https://developers.google.com/workspace/chat/quickstart/webhooks and …/api/reference/rest/v1/spaces.messages/create */
const google_chat: ChatRules = {
  config: (origin) => ({ webhook_url: `${origin}${GOOGLE_PATH}?key=AIza-google-key&token=Z29vZ2xl-token` }),
  take(request, { seen }) {
    const { searchParams } = request.url
    if (!isAt(request, 'POST', GOOGLE_PATH))
      return refusal(404, { error: { code: 404, message: 'not found', status: 'NOT_FOUND' } })
    if (searchParams.get('token') !== 'Z29vZ2xl-token') {
      return refusal(401, {
        error: { code: 401, message: 'Invalid authentication credentials.', status: 'UNAUTHENTICATED' },
      })
    }
    const { text, cardsV2 } = jsonOf(request)
    const cards: readonly unknown[] = Array.isArray(cardsV2) ? cardsV2 : []
    if (text === undefined && cards.length === 0) {
      return refusal(400, { error: { code: 400, message: 'Message cannot be empty.', status: 'INVALID_ARGUMENT' } })
    }
    const id = searchParams.get('requestId') ?? ''
    if (seen.has(id)) return { shown: '' }
    if (id !== '') seen.add(id)
    const marked =
      text === undefined
        ? ''
        : String(text)
            .replaceAll(/<([^>]*)>/g, '[call]$1')
            .replaceAll(/[*_~`]/g, '[mark]')
    return { shown: marked + cards.map(cardText).join('\n') }
  },
  success: { status: 200, body: { name: 'spaces/AAAAxyz/messages/1.1' } },
  rateLimit: () => ({
    status: 429,
    body: {
      error: { code: 429, message: "Quota exceeded for quota metric 'Message writes'.", status: 'RESOURCE_EXHAUSTED' },
    },
  }),
  gone: {
    status: 403,
    body: { error: { code: 403, message: 'The caller does not have permission', status: 'PERMISSION_DENIED' } },
  },
}

/** Titles are plain, paragraphs are HTML. */
function cardText(value: unknown): string {
  const texts: string[] = []
  const walk = (each: unknown): void => {
    if (Array.isArray(each)) for (const one of each) walk(one)
    if (!isObject(each)) return
    if (typeof each.title === 'string') texts.push(each.title)
    if (typeof each.text === 'string') {
      texts.push(decoded(each.text.replaceAll(/<\/?b>/g, '').replaceAll(/<([^>]*)>/g, '[mark]$1')))
    }
    for (const inner of Object.values(each)) if (typeof inner === 'object') walk(inner)
  }
  walk(value)
  return texts.join('\n')
}

const TELEGRAM_TOKEN = '110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw'
const telegramError = (status: number, description: string, more: Json = {}): ChatAnswer => ({
  status,
  body: { ok: false, error_code: status, description, ...more },
})

/** https://core.telegram.org/bots/api#sendmessage, #making-requests and #html-style */
const telegram: ChatRules = {
  config: (origin) => ({ bot_token: TELEGRAM_TOKEN, chat_id: '-1001234', api_url: origin }),
  take(request) {
    if (!request.url.pathname.startsWith(`/bot${TELEGRAM_TOKEN}/`))
      return { refusal: telegramError(401, 'Unauthorized') }
    if (!request.url.pathname.endsWith('/sendMessage')) return { refusal: telegramError(404, 'Not Found') }
    const { chat_id: chat, text, parse_mode: mode } = jsonOf(request)
    if (chat !== '-1001234') return { refusal: telegramError(400, 'Bad Request: chat not found') }
    if (typeof text !== 'string' || text === '')
      return { refusal: telegramError(400, 'Bad Request: message text is empty') }
    const plain = mode === 'HTML' ? text.replaceAll(/<\/?(?:b|i|u|s|code|pre)>/g, '') : text
    const [tag] = mode === 'HTML' ? (/<\/?[^>]*>?/.exec(plain) ?? []) : []
    if (tag !== undefined)
      return { refusal: telegramError(400, `Bad Request: can't parse entities: Unsupported start tag "${tag}"`) }
    const shown = mode === 'HTML' ? decoded(plain) : plain
    return shown.length > 4096 ? { refusal: telegramError(400, 'Bad Request: message is too long') } : { shown }
  },
  success: { status: 200, body: { ok: true, result: { message_id: 1 } } },
  rateLimit: (afterSec) =>
    telegramError(429, `Too Many Requests: retry after ${afterSec}`, { parameters: { retry_after: afterSec } }),
  gone: telegramError(403, 'Forbidden: bot was kicked from the supergroup chat'),
}

const MATRIX_TOKEN = 'syt_bWF0cml4_token_x'
const MATRIX_ROOM = '!room:example.org'
const MAX_MATRIX_BYTES = 65_536

/** https://spec.matrix.org/latest/client-server-api/: #standard-error-response, #rate-limiting, #transaction-identifiers */
const matrix: ChatRules = {
  config: (origin) => ({ homeserver_url: origin, access_token: MATRIX_TOKEN, room_id: MATRIX_ROOM }),
  take({ method, url, headers, body }, { seen }) {
    if (headers.authorization !== `Bearer ${MATRIX_TOKEN}`) {
      return refusal(401, { errcode: 'M_UNKNOWN_TOKEN', error: 'Unrecognised access token', soft_logout: false })
    }
    const [, room = '', transaction = ''] =
      /^\/_matrix\/client\/v3\/rooms\/([^/]+)\/send\/m\.room\.message\/([^/]+)$/.exec(url.pathname) ?? []
    if (method !== 'PUT' || room === '')
      return refusal(404, { errcode: 'M_UNRECOGNIZED', error: 'Unrecognized request' })
    if (decodeURIComponent(room) !== MATRIX_ROOM)
      return refusal(403, { errcode: 'M_FORBIDDEN', error: 'You are not in the room.' })
    if (body.length > MAX_MATRIX_BYTES) return refusal(413, { errcode: 'M_TOO_LARGE', error: 'event too large' })
    if (seen.has(transaction)) return { shown: '' }
    seen.add(transaction)
    const content: unknown = JSON.parse(body)
    if (!isObject(content) || typeof content.body !== 'string')
      return refusal(400, { errcode: 'M_BAD_JSON', error: 'no body' })
    const html = String(content.formatted_body)
      .replaceAll(/<br>/g, '\n')
      .replaceAll(/<\/?strong>/g, '')
    const mentions = isObject(content['m.mentions']) ? Object.keys(content['m.mentions']).length : 1
    return { shown: (mentions === 0 ? '' : '[call]') + decoded(html.replaceAll(/<([^>]*)>/g, '[mark]$1')) }
  },
  success: { status: 200, body: { event_id: '$event:example.org' } },
  rateLimit: (afterSec) => ({
    status: 429,
    body: { errcode: 'M_LIMIT_EXCEEDED', error: 'Too many requests', retry_after_ms: afterSec * 1000 },
  }),
  gone: { status: 403, body: { errcode: 'M_FORBIDDEN', error: 'User is not in the room' } },
}

/** How each provider of chats takes messages. */
export const chatRules = { discord, slack, teams, google_chat, telegram, matrix } as const
