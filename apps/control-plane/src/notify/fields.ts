import { AppError } from '@wrenn/base'
import { z } from 'zod'
import type { Guard } from './guard.js'
import type { ChannelConfig, Provider } from './provider.js'

/** Reads a configuration. @throws AppError `invalid_request`, naming the field */
export function readFields<Shape extends z.ZodRawShape>(shape: Shape, config: ChannelConfig) {
  const parsed = z.strictObject(shape).safeParse(config)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const keys = issue?.code === 'unrecognized_keys' ? issue.keys : issue?.path
  const field = ['config', ...(keys ?? [])].join('.')
  const isAbsent = issue?.code === 'invalid_type' && !Object.hasOwn(config, String(keys?.[0]))
  const message =
    issue?.code === 'unrecognized_keys'
      ? `there is no such field; the fields are ${Object.keys(shape).join(', ')}`
      : isAbsent
        ? 'is needed'
        : (issue?.message ?? 'is not valid')
  throw invalid(field, message)
}

/** Of a field of `config`. */
export function invalid(field: string, message: string): AppError {
  return new AppError('invalid_request', `${field}: ${message}`, { details: { issues: [{ field, message }] } })
}

/** A URL of http or https, without a user. Whether it may be sent to says the guard. @throws AppError `invalid_request`, `target_refused` */
export function readUrl(field: string, text: string, guard: Guard): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) throw invalid(`config.${field}`, 'must be an https: URL')
  if (url.username !== '' || url.password !== '') throw invalid(`config.${field}`, 'must have no user and password')
  guard.check(url)
  url.hash = ''
  return url
}

/** The form that a provider's URLs have. */
export interface UrlForm {
  readonly host: RegExp
  readonly path: RegExp
  readonly example: string
}

/**
 * The URL of a provider's webhook. A server that speaks as the provider does, in a network of the operator's list, may have another host.
 * @throws AppError `invalid_request`, `target_refused`
 */
export function readProviderUrl(text: string, { host, path, example }: UrlForm, guard: Guard): URL {
  const url = readUrl('webhook_url', text, guard)
  const isTheirs = url.protocol === 'https:' && url.port === '' && host.test(url.hostname)
  if ((isTheirs || guard.isAllowed(url)) && path.test(url.pathname)) return url
  throw invalid('config.webhook_url', `must be like ${example}`)
}

/** What all providers have in common that are addressed by a webhook's URL alone, and take one message at a time. */
export function byWebhookUrl(form: UrlForm): Pick<Provider, 'concurrency' | 'parse' | 'target'> {
  return {
    concurrency: 1,
    parse: (config, guard) => {
      const { webhook_url } = readFields({ webhook_url: z.string() }, config)
      return { webhook_url: readProviderUrl(webhook_url, form, guard).href }
    },
    target: ({ webhook_url = '' }) => new URL(webhook_url).host,
  }
}
