import type { FileEntry, UploadResult } from '@wrenn/protocol'
import { toText } from './bytes.js'
import { fileInfo } from './convert.js'
import { FileNotFoundError } from './errors.js'
import type { CallOptions, Transport } from './transport.js'
import type { FileInfo } from './types.js'

export interface FileOptions extends CallOptions {
  /** User inside the capsule whose rights count, and at whose home a relative path starts. @default the capsule's user */
  readonly user?: string
}
export interface ReadOptions extends FileOptions {
  /** First byte wanted. @default 0 */
  readonly offsetBytes?: number
  /** @default to the end */
  readonly lengthBytes?: number
}
export interface ListOptions extends FileOptions {
  /** Levels below the directory. @default 1 */
  readonly depth?: number
}

/** A stream is sent as it comes; one that failed half-way cannot be sent again. */
export type FileContent = string | Uint8Array<ArrayBuffer> | Blob | ReadableStream<Uint8Array>

/** Files of one capsule. Missing ones are `FileNotFoundError`, except where `exists` asks. */
export class Files {
  readonly #transport: Transport
  readonly #base: string

  constructor(transport: Transport, capsuleId: string) {
    this.#transport = transport
    this.#base = `/v1/capsules/${capsuleId}/files`
  }

  async read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    const response = await this.#open(path, options)
    return new Uint8Array(await response.arrayBuffer())
  }

  async readText(path: string, options: ReadOptions = {}): Promise<string> {
    return toText(await this.read(path, options))
  }

  /** For what should not be in memory at once. Not reading it slows the sender down. */
  async readStream(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#open(path, options)
    return response.body ?? new ReadableStream({ start: (controller) => controller.close() })
  }

  #open(path: string, options: ReadOptions): Promise<Response> {
    const { user, offsetBytes, lengthBytes, ...call } = options
    const json = { path, user, offset: offsetBytes, length: lengthBytes }
    return this.#transport.request('POST', `${this.#base}/stream/read`, { ...call, json, idempotent: true })
  }

  /**
   * Replaces the file, making its parent directories.
   * Streaming a body needs HTTP/2 in browsers; pass a `Blob` there.
   */
  async write(path: string, content: FileContent, options: FileOptions = {}): Promise<{ sizeBytes: number }> {
    const { user, ...call } = options
    const result = await this.#transport.json<UploadResult>('PUT', this.#base, {
      // An upload takes as long as it takes; only the caller knows how much there is.
      requestTimeoutMs: 0,
      ...call,
      query: { path, user },
      body: content,
      headers: { 'Content-Type': 'application/octet-stream' },
      idempotent: !(content instanceof ReadableStream),
    })
    return { sizeBytes: result.bytes }
  }

  async list(path: string, options: ListOptions = {}): Promise<FileInfo[]> {
    const { depth, ...rest } = options
    const { entries } = await this.#ask<{ entries: FileEntry[] }>('list', { path, depth }, rest)
    return entries.map(fileInfo)
  }

  async stat(path: string, options: FileOptions = {}): Promise<FileInfo> {
    const { entry } = await this.#ask<{ entry: FileEntry }>('stat', { path }, options)
    return fileInfo(entry)
  }

  async exists(path: string, options: FileOptions = {}): Promise<boolean> {
    try {
      await this.stat(path, options)
      return true
    } catch (error) {
      if (error instanceof FileNotFoundError) return false
      throw error
    }
  }

  /** With its parents. @throws WrennError `conflict` when it exists. */
  async makeDir(path: string, options: FileOptions = {}): Promise<FileInfo> {
    const { entry } = await this.#ask<{ entry: FileEntry }>('mkdir', { path }, options, false)
    return fileInfo(entry)
  }

  async move(source: string, destination: string, options: FileOptions = {}): Promise<FileInfo> {
    const { entry } = await this.#ask<{ entry: FileEntry }>('move', { source, destination }, options, false)
    return fileInfo(entry)
  }

  /** A directory goes with everything in it. */
  async remove(path: string, options: FileOptions = {}): Promise<void> {
    const { user, ...call } = options
    await this.#transport.send('POST', `${this.#base}/remove`, { ...call, json: { path, user } })
  }

  #ask<T>(verb: string, json: object, options: FileOptions, idempotent = true): Promise<T> {
    const { user, ...call } = options
    return this.#transport.json<T>('POST', `${this.#base}/${verb}`, { ...call, json: { ...json, user }, idempotent })
  }
}
