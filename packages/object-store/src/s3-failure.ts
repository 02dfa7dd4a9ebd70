import { AppError, errorText } from '@wrenn/base'
import type { ObjectStoreConfig } from './config.js'

/** What was tried, as it reads in a message: "write an object". */
export type StoreAction = 'write' | 'read' | 'list' | 'remove'

/** What an answer or a broken connection says, whatever class of the SDK it is. */
interface Facts {
  readonly name: string
  readonly code: string
  readonly status: number | undefined
  readonly message: string
  /** The region that the server says it is in. */
  readonly region: string | undefined
}

/** Names of failures by what is wrong; the first sentence that fits is told. */
const RESOLVE = ['ENOTFOUND']
const UNREACHABLE = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'ECONNRESET', 'EPIPE', 'EAI_AGAIN']
/** The hash in a request's signature is not that of its body. */
const CHANGED = ['BadDigest', 'XAmzContentSHA256Mismatch']
const TLS = /^(?:ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|ERR_SSL|EPROTO)/

/**
 * A sentence that names the setting to look at, for anything that a request fails with.
 * @returns AppError `object_store_unavailable` where trying later can help, else `object_store_refused`
 */
export function storeFailure(thrown: unknown, action: StoreAction, config: ObjectStoreConfig): AppError {
  if (thrown instanceof AppError) return thrown
  const facts = factsOf(thrown)
  if (CHANGED.includes(facts.name)) {
    const message = `The object store at ${endpointOf(config)} got other bytes than were sent (${facts.name}).`
    return new AppError('object_store_unavailable', message, { cause: thrown, details: { isBroken: true } })
  }
  const refused = refusal(facts, action, config)
  if (refused !== undefined) return new AppError('object_store_refused', refused, { cause: thrown })
  const where = endpointOf(config)
  const said =
    facts.status === undefined || isBrokenOff(facts) ? unreachable(facts) : `answered ${facts.status} (${facts.name})`
  return new AppError('object_store_unavailable', `The object store at ${where} ${said}.`, { cause: thrown })
}

/** The server's address, for messages. */
export function endpointOf({ endpoint, region }: ObjectStoreConfig): string {
  return endpoint ?? `Amazon S3 in ${region}`
}

function refusal(facts: Facts, action: StoreAction, config: ObjectStoreConfig): string | undefined {
  const { bucket, region, forcePathStyle } = config
  const where = endpointOf(config)
  if (RESOLVE.includes(facts.code)) {
    const style = forcePathStyle ? '' : ' With WRENN_OBJECT_STORE_PATH_STYLE=1 the bucket is no part of the name.'
    return `The name of the object store ${where} is not known here: look at WRENN_OBJECT_STORE_ENDPOINT.${style}`
  }
  if (TLS.test(facts.code)) {
    return `TLS with the object store ${where} fails (${facts.code}): look at WRENN_OBJECT_STORE_ENDPOINT, and give Node.js the authority of its certificate by NODE_EXTRA_CA_CERTS.`
  }
  switch (facts.name) {
    case 'NoSuchBucket':
      return `There is no bucket "${bucket}" at ${where}: make it, or name another one in WRENN_OBJECT_STORE.`
    case 'InvalidAccessKeyId':
      return `The object store at ${where} does not know WRENN_OBJECT_STORE_ACCESS_KEY.`
    case 'SignatureDoesNotMatch':
      return `The object store at ${where} does not accept the signature: WRENN_OBJECT_STORE_SECRET_KEY is not that of WRENN_OBJECT_STORE_ACCESS_KEY, or a proxy changes requests.`
    case 'AuthorizationHeaderMalformed':
    case 'PermanentRedirect':
    case 'IllegalLocationConstraintException': {
      const theirs = facts.region === undefined ? 'another one' : `"${facts.region}"`
      return `The bucket "${bucket}" at ${where} is in ${theirs}, not in "${region}": set WRENN_OBJECT_STORE_REGION.`
    }
    case 'RequestTimeTooSkewed':
      return `The clocks of this machine and of the object store at ${where} differ too much: set the one that is wrong.`
    case 'AccessDenied':
    case 'Forbidden':
      return `WRENN_OBJECT_STORE_ACCESS_KEY may not ${action} objects of the bucket "${bucket}" at ${where}: allow it to read, write, list and remove there.`
    case 'QuotaExceeded':
      return `The object store at ${where} has no room left for this key or bucket ("${bucket}"): raise its quota.`
  }
  if (facts.status === undefined || isTransient(facts.status) || isBrokenOff(facts)) return undefined
  return `The object store at ${where} answered ${facts.status} (${facts.name}) to a request to ${action} objects: look at WRENN_OBJECT_STORE and WRENN_OBJECT_STORE_ENDPOINT. It said: ${facts.message.slice(0, 200)}`
}

function unreachable({ code, name, message }: Facts): string {
  if (UNREACHABLE.includes(code)) return `cannot be reached (${code})`
  if (/timeout/i.test(name)) return 'does not answer in time'
  return `broke off: ${message.slice(0, 200)}`
}

/** Whatever status it has: the line was cut in the body of a 200, or a server that got no byte for long has said so by 400 `RequestTimeout`. */
function isBrokenOff({ code, name }: Facts): boolean {
  return UNREACHABLE.includes(code) || /timeout/i.test(name)
}

/** 501 tells of what the server never does; 200 is of an answer that cannot be understood. */
function isTransient(status: number): boolean {
  return (status >= 500 && status !== 501) || status === 429 || status === 408
}

/** Whether bytes of a body, on their way to or from the server, were what failed: then the same request may succeed at once. */
export function isBroken(error: unknown): boolean {
  return AppError.is(error, 'object_store_unavailable') && error.details?.isBroken === true
}

function factsOf(thrown: unknown): Facts {
  const fields: Record<string, unknown> = typeof thrown === 'object' && thrown !== null ? { ...thrown } : {}
  const metadata: Record<string, unknown> = isRecord(fields.$metadata) ? fields.$metadata : {}
  const name = thrown instanceof Error ? thrown.name : 'unknown'
  return {
    name: typeof fields.Code === 'string' ? fields.Code : name,
    code: typeof fields.code === 'string' ? fields.code : '',
    status: typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined,
    message: errorText(thrown),
    region: typeof fields.Region === 'string' ? fields.Region : undefined,
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
