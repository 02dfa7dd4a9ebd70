import { type IncomingMessage, request as requestPlain } from 'node:http'
import { request as requestSecure } from 'node:https'
import { AppError, boundedText, errorText } from '@wrenn/base'
import { z } from 'zod'

const ANSWER_WITHIN_MS = 30_000
const MAX_ANSWER_BYTES = 256 * 1024
const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/

const refusalSchema = z.object({ error: z.object({ code: z.string(), message: z.string() }) })
const credentialsSchema = z.object({
  host: z.object({ id: z.string() }),
  refresh_token: z.string(),
  cert_pem: z.string(),
  ca_cert_pem: z.string(),
})
/** What a platform answers to who joins and to who renews. */
export type Credentials = z.infer<typeof credentialsSchema>

/** A platform, as a host knows it. */
export interface Platform {
  readonly url: string
  readonly urlAuthorities?: string | undefined
}

/**
 * Where the API of a platform is, without a slash at its end. Whoever answers there is let into this machine as root, so on a network
 * only TLS will do.
 * @throws AppError `invalid_request`
 */
export function platformUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '') {
    throw new AppError('invalid_request', `${text} is not the URL of a platform, such as https://wrenn.example:8443.`)
  }
  if (url.protocol === 'http:' && !LOOPBACK.test(url.hostname)) {
    const message = `${text} is not protected: whoever answers in its place would be root here. Use https, with --ca where the certificate is of an authority of your own.`
    throw new AppError('invalid_request', message)
  }
  return url.href.replace(/\/+$/, '')
}

/** Asks for credentials, until `signal`. @throws AppError what the platform answers, or `connection_failed` */
export async function askForCredentials(
  { url, urlAuthorities }: Platform,
  path: string,
  body: object,
  signal?: AbortSignal,
): Promise<Credentials> {
  const asked = post(`${url}${path}`, urlAuthorities, JSON.stringify(body), signal)
  const { status, text } = await asked.catch((cause: unknown) => {
    throw new AppError('connection_failed', `The platform at ${url} does not answer: ${errorText(cause)}.`, { cause })
  })
  const answer = parseJson(text)
  if (status === 200 || status === 201) {
    const credentials = credentialsSchema.safeParse(answer).data
    if (credentials !== undefined) return credentials
  }
  const refusal = refusalSchema.safeParse(answer).data?.error
  if (refusal !== undefined) throw new AppError(refusal.code, refusal.message)
  throw new AppError('connection_failed', `What answers at ${url} is no platform (status ${status}).`)
}

async function post(
  url: string,
  ca: string | undefined,
  body: string,
  stopped: AbortSignal | undefined,
): Promise<{ readonly status: number; readonly text: string }> {
  const request = url.startsWith('https:') ? requestSecure : requestPlain
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }
  const timeout = AbortSignal.timeout(ANSWER_WITHIN_MS)
  const signal = stopped === undefined ? timeout : AbortSignal.any([timeout, stopped])
  const options = { method: 'POST', headers, signal, agent: false, ...(ca === undefined ? {} : { ca }) }
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    request(url, options, resolve).once('error', reject).end(body)
  })
  return { status: answer.statusCode ?? 0, text: await boundedText(answer, MAX_ANSWER_BYTES) }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
