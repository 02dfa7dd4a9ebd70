import { AppError } from '@wrenn/base'
import { z } from 'zod'

/** Segments of `A-Z a-z 0-9 . _ -` that are neither `.` nor `..`: such keys mean the same to every server, proxy and signature. */
const PLACE = /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:\/(?!\.{1,2}(?:\/|$))[A-Za-z0-9._-]+)*)\/?$/
const MAX_PREFIX_CHARS = 512
const DEFAULT_REGION = 'us-east-1'

/** Fields for the environment of a program that uses the object store; {@link objectStoreConfig} makes a configuration of them. */
export const objectStoreFields = {
  /** Bucket and, where it is shared, what keys begin with: `s3://bucket/prefix`. Without it there is no object store. */
  WRENN_OBJECT_STORE: z
    .string()
    .trim()
    .refine(
      (text) => placeOf(text) !== undefined,
      'must be s3://bucket or s3://bucket/prefix, the prefix of letters, digits, `.`, `_`, `-` and `/`',
    )
    .optional(),
  /** The server, `http(s)://host[:port]`; none is Amazon's of the region. */
  WRENN_OBJECT_STORE_ENDPOINT: z
    .string()
    .trim()
    .refine(isEndpoint, 'must be http://host[:port] or https://host[:port], without a path')
    .optional(),
  WRENN_OBJECT_STORE_REGION: z
    .string()
    .trim()
    .regex(/^[A-Za-z0-9-]{1,64}$/, 'must be a name of letters, digits and `-`, such as eu-central-1')
    .default(DEFAULT_REGION),
  WRENN_OBJECT_STORE_ACCESS_KEY: z.string().trim().min(1).optional(),
  WRENN_OBJECT_STORE_SECRET_KEY: z.string().trim().min(1).optional(),
  /** Whether the bucket is the first part of the path instead of the host's name; default: where an endpoint is set. */
  WRENN_OBJECT_STORE_PATH_STYLE: z
    .enum(['0', '1', 'true', 'false'])
    .transform((text) => text === '1' || text === 'true')
    .optional(),
} as const

/** What {@link objectStoreFields} are when they were read. */
export type ObjectStoreValues = z.output<z.ZodObject<typeof objectStoreFields>>

/** Where objects are kept, and with which key. The secret is in no message and no log. */
export interface ObjectStoreConfig {
  readonly bucket: string
  /** What each key begins with: empty, or it ends with `/`. */
  readonly prefix: string
  /** @default Amazon's of the region */
  readonly endpoint: string | undefined
  readonly region: string
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly forcePathStyle: boolean
}

/**
 * The object store that the environment names; `undefined` when it names none.
 * @throws AppError `invalid_config`, naming the variable that is missing or means nothing
 */
export function objectStoreConfig(values: ObjectStoreValues): ObjectStoreConfig | undefined {
  const place = values.WRENN_OBJECT_STORE
  const accessKeyId = values.WRENN_OBJECT_STORE_ACCESS_KEY
  const secretAccessKey = values.WRENN_OBJECT_STORE_SECRET_KEY
  const endpoint = values.WRENN_OBJECT_STORE_ENDPOINT
  if (place === undefined) return undefined
  if (accessKeyId === undefined || secretAccessKey === undefined)
    throw new AppError('invalid_config', withoutKey(accessKeyId))
  const { bucket, prefix } = placeOf(place) ?? { bucket: place, prefix: '' }
  return Object.freeze({
    bucket,
    prefix,
    endpoint,
    region: values.WRENN_OBJECT_STORE_REGION,
    accessKeyId,
    secretAccessKey,
    forcePathStyle: values.WRENN_OBJECT_STORE_PATH_STYLE ?? endpoint !== undefined,
  })
}

function withoutKey(accessKeyId: string | undefined): string {
  const missing = accessKeyId === undefined ? 'WRENN_OBJECT_STORE_ACCESS_KEY' : 'WRENN_OBJECT_STORE_SECRET_KEY'
  return `The configuration is not usable: WRENN_OBJECT_STORE is set, and ${missing} is not: set both keys.`
}

function placeOf(text: string): { bucket: string; prefix: string } | undefined {
  const [, bucket, path = ''] = PLACE.exec(text) ?? []
  if (bucket === undefined || path.length > MAX_PREFIX_CHARS || bucket.includes('..')) return undefined
  return { bucket, prefix: path === '' ? '' : `${path.slice(1)}/` }
}

function isEndpoint(text: string): boolean {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) return false
  const { pathname, search, hash, username } = new URL(text)
  return pathname === '/' && search === '' && hash === '' && username === ''
}

/** Keeps the SDK from telling users on stderr which Node.js its later versions need: which version there is, our lock file says. */
export function quietSdk(): void {
  process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= 'true'
}
