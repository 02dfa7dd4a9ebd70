import { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3'
import { AppError } from '@wrenn/base'
import type { ObjectStoreConfig } from './config.js'
import type { GetOptions, ObjectStore, StoreAbilities, StoredObject, StoreOptions } from './object-store.js'
import { Room } from './room.js'
import { createClient } from './s3-client.js'
import { endpointOf, isBroken, type StoreAction, storeFailure } from './s3-failure.js'

const KEY = /^[A-Za-z0-9._-]+(?:\/[A-Za-z0-9._-]+)*$/
/** S3's own bound of listings and of `DeleteObjects`. */
const MAX_KEYS_AT_ONCE = 1_000
/** Of a range in an object that has no byte. */
const EMPTY_STATUS = 416
const BODY_ATTEMPTS = 4
const ROOM_BYTES = 48 * 2 ** 20
const FIRST_PAUSE_MS = 100

/** The requests that make an {@link ObjectStore}, and those that show what the server can do. */
export class S3Store implements ObjectStore {
  readonly #client: S3Client
  readonly #config: ObjectStoreConfig
  readonly #keysAtOnce: number
  readonly name: string
  readonly room = new Room(ROOM_BYTES)
  abilities: StoreAbilities = { ranges: false, conditionalWrites: false }

  constructor(config: ObjectStoreConfig, options: StoreOptions = {}) {
    this.#config = config
    this.#client = createClient(config, options)
    this.#keysAtOnce = options.keysAtOnce ?? MAX_KEYS_AT_ONCE
    const place = `s3://${config.bucket}/${config.prefix}`.replace(/\/$/, '')
    this.name = `${place} at ${endpointOf(config)}`
  }

  async put(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    const command = new PutObjectCommand({ ...this.#at(key), Body: bytes, ContentLength: bytes.byteLength })
    await this.#again(signal, () => this.#call('write', signal, (options) => this.#client.send(command, options)))
  }

  /** @returns false when the server refused because the object is there */
  async putIfAbsent(key: string, bytes: Uint8Array, signal?: AbortSignal): Promise<boolean> {
    const input = { ...this.#at(key), Body: bytes, ContentLength: bytes.byteLength, IfNoneMatch: '*' }
    return await this.#call('write', signal, async (options) => {
      try {
        await this.#client.send(new PutObjectCommand(input), options)
        return true
      } catch (error) {
        if (statusOf(error) === 412) return false
        throw error
      }
    })
  }

  async get(key: string, { maxBytes, signal }: GetOptions): Promise<Buffer | undefined> {
    return await this.#read(key, undefined, maxBytes, signal)
  }

  /** Bytes `first` to `last` of an object, both included: or whatever the server takes for them. */
  async getRange(
    key: string,
    first: number,
    last: number,
    { maxBytes, signal }: GetOptions,
  ): Promise<Buffer | undefined> {
    return await this.#read(key, `bytes=${first}-${last}`, maxBytes, signal)
  }

  /** Asks for the first byte, not by HEAD: to that, Swift answers with a body, which costs the connection or spoils the next answer on it. */
  async has(key: string, signal?: AbortSignal): Promise<boolean> {
    return await this.#call('read', signal, async (options) => {
      try {
        const command = new GetObjectCommand({ ...this.#at(key), Range: 'bytes=0-0' })
        const { Body: body, ContentLength: length = 0 } = await this.#client.send(command, options)
        // One who ignores ranges sends all of it.
        if (body instanceof Readable && length > 1) body.destroy()
        else if (body instanceof Readable) body.resume()
        return true
      } catch (error) {
        if (isNoSuchKey(error)) return false
        if (statusOf(error) === EMPTY_STATUS) return true
        throw error
      }
    })
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<StoredObject, void, void> {
    const { bucket: Bucket, prefix: base } = this.#config
    let token: string | undefined
    do {
      const from = token === undefined ? {} : { ContinuationToken: token }
      const input = { Bucket, Prefix: `${base}${prefix}`, MaxKeys: this.#keysAtOnce, ...from }
      const page = await this.#call('list', signal, (options) =>
        this.#client.send(new ListObjectsV2Command(input), options),
      )
      for (const { Key = '', Size = 0 } of page.Contents ?? []) yield { key: Key.slice(base.length), sizeBytes: Size }
      token = page.IsTruncated === true ? this.#goingOn(page.NextContinuationToken, token) : undefined
    } while (token !== undefined)
  }

  async remove(keys: readonly string[], signal?: AbortSignal): Promise<void> {
    for (let at = 0; at < keys.length; at += this.#keysAtOnce) {
      const Objects = keys.slice(at, at + this.#keysAtOnce).map((key) => ({ Key: this.#at(key).Key }))
      const command = new DeleteObjectsCommand({ Bucket: this.#config.bucket, Delete: { Objects, Quiet: true } })
      const { Errors = [] } = await this.#call('remove', signal, (options) => this.#client.send(command, options))
      const [left] = Errors.filter(({ Code }) => Code !== 'NoSuchKey')
      if (left === undefined) continue
      throw storeFailure(Object.assign(new Error(left.Message ?? ''), { Code: left.Code }), 'remove', this.#config)
    }
  }

  /** A listing that ends too early is not taken for a whole one: what it does not name would count as not there. */
  #goingOn(next: string | undefined, before: string | undefined): string {
    if (next !== undefined && next !== '' && next !== before) return next
    const message = `The object store ${this.name} lists a part of its objects and does not say how to go on: it cannot be used.`
    throw new AppError('object_store_refused', message)
  }

  close(): void {
    this.#client.destroy()
  }

  #at(key: string): { Bucket: string; Key: string } {
    if (!KEY.test(key)) throw new Error(`"${key}" is no key of an object store`)
    return { Bucket: this.#config.bucket, Key: `${this.#config.prefix}${key}` }
  }

  async #read(
    key: string,
    range: string | undefined,
    maxBytes: number,
    signal?: AbortSignal,
  ): Promise<Buffer | undefined> {
    return await this.#again(signal, () =>
      this.#call('read', signal, (options) => this.#readOnce(key, range, maxBytes, options)),
    )
  }

  /** The SDK makes a request again, but not one whose bytes were changed on their way or whose answer broke off in its body. */
  async #again<T>(signal: AbortSignal | undefined, request: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await request()
      } catch (error) {
        if (attempt === BODY_ATTEMPTS || !isBroken(error)) throw error
        await delay(FIRST_PAUSE_MS * 2 ** attempt * (0.5 + Math.random()), undefined, signal ? { signal } : {})
      }
    }
  }

  async #readOnce(
    key: string,
    range: string | undefined,
    maxBytes: number,
    options: SendOptions,
  ): Promise<Buffer | undefined> {
    const input = { ...this.#at(key), ...(range === undefined ? {} : { Range: range }) }
    const answer = await this.#client.send(new GetObjectCommand(input), options).catch((error: unknown) => {
      if (isNoSuchKey(error)) return undefined
      throw error
    })
    if (answer === undefined) return undefined
    const { Body: body, ContentLength: length } = answer
    if (body === undefined || !isStream(body)) return Buffer.alloc(0)
    try {
      return await collect(body, { key, length, maxBytes })
    } catch (error) {
      options.abortSignal?.throwIfAborted()
      if (error instanceof AppError) throw error
      const { code, message } = storeFailure(error, 'read', this.#config)
      throw new AppError(code, message, { cause: error, details: { isBroken: true } })
    }
  }

  async #call<T>(
    action: StoreAction,
    signal: AbortSignal | undefined,
    send: (options: SendOptions) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted()
    try {
      return await send(signal === undefined ? {} : { abortSignal: signal })
    } catch (error) {
      signal?.throwIfAborted()
      throw storeFailure(error, action, this.#config)
    }
  }
}

interface SendOptions {
  readonly abortSignal?: AbortSignal
}

interface Expected {
  readonly key: string
  readonly length: number | undefined
  readonly maxBytes: number
}

async function collect(body: NodeJS.ReadableStream, { key, length, maxBytes }: Expected): Promise<Buffer> {
  const parts: Buffer[] = []
  let size = 0
  for await (const part of body) {
    const bytes = typeof part === 'string' ? Buffer.from(part) : part
    size += bytes.length
    // Leaving the loop ends the stream, and its connection.
    if (size > maxBytes)
      throw new AppError('stored_state_damaged', `The stored object ${key} is larger than it can be.`)
    parts.push(bytes)
  }
  if (length !== undefined && size !== length) throw new Error(`${size} bytes came of ${length}`)
  return Buffer.concat(parts, size)
}

function isStream(body: object): body is NodeJS.ReadableStream {
  return Symbol.asyncIterator in body
}

function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined
  const metadata: unknown = error.$metadata
  if (typeof metadata !== 'object' || metadata === null || !('httpStatusCode' in metadata)) return undefined
  return typeof metadata.httpStatusCode === 'number' ? metadata.httpStatusCode : undefined
}

function isNoSuchKey(error: unknown): boolean {
  return error instanceof Error && (error.name === 'NoSuchKey' || ('Code' in error && error.Code === 'NoSuchKey'))
}
