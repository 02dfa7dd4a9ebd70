import { createHash } from 'node:crypto'
import { Agent as HttpAgent } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import { S3Client } from '@aws-sdk/client-s3'
import { type ObjectStoreConfig, quietSdk } from './config.js'
import type { StoreOptions, StoreTimeouts } from './object-store.js'

const DEFAULT_ATTEMPTS = 5
const DEFAULT_TIMEOUTS: StoreTimeouts = { connectMs: 5_000, silenceMs: 30_000, answerMs: 120_000 }
const MAX_CONNECTIONS = 32

/** The SDK's client, as servers other than Amazon's need it. */
export function createClient(config: ObjectStoreConfig, options: StoreOptions): S3Client {
  const { connectMs, silenceMs, answerMs } = { ...DEFAULT_TIMEOUTS, ...options.timeouts }
  quietSdk()
  const agent = { keepAlive: true, maxSockets: MAX_CONNECTIONS }
  const client = new S3Client({
    region: config.region,
    ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }),
    credentials: { accessKeyId: config.accessKeyId, secretAccessKey: config.secretAccessKey },
    forcePathStyle: config.forcePathStyle,
    maxAttempts: options.attempts ?? DEFAULT_ATTEMPTS,
    // Other servers refuse or ignore the SDK's own checksums; what is read is checked by its reader.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: {
      connectionTimeout: connectMs,
      socketTimeout: silenceMs,
      requestTimeout: answerMs,
      throwOnRequestTimeout: true,
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent(agent),
    },
  })
  addContentMd5(client)
  return client
}

/** What S3's `DeleteObjects` has always asked for: the SDK sends a newer checksum instead, which Swift does not take for it. */
function addContentMd5(client: S3Client): void {
  client.middlewareStack.add(
    (next, { commandName }) =>
      async (args) => {
        const request: unknown = args.request
        if (commandName === 'DeleteObjectsCommand' && isWithBody(request)) {
          request.headers['content-md5'] = createHash('md5').update(request.body).digest('base64')
        }
        return await next(args)
      },
    { step: 'build', name: 'contentMd5', priority: 'low' },
  )
}

interface RequestWithBody {
  readonly headers: Record<string, string>
  readonly body: string | Uint8Array
}

function isWithBody(request: unknown): request is RequestWithBody {
  if (typeof request !== 'object' || request === null || !('headers' in request) || !('body' in request)) return false
  return typeof request.body === 'string' || request.body instanceof Uint8Array
}
