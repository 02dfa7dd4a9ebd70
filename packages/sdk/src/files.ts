import { ARCHIVE_TYPE, type FileEntry, FRAMED_ARCHIVE_TYPE, type UploadResult } from '@wrenn/protocol'
import { archiveStream } from './archive-stream.js'
import { toText } from './bytes.js'
import { fileInfo } from './convert.js'
import { FileNotFoundError } from './errors.js'
import type { CallOptions, Transport } from './transport.js'
import type { FileInfo } from './types.js'

/** As whom the file system of a capsule is used. */
export interface FileOptions extends CallOptions {
  /**
   * User inside the capsule whose rights count, who owns what is made, and at whose home a relative path starts.
   * @default the capsule's user
   */
  readonly user?: string
}
/** Which part of a file is read: all of it, unless one of the two is given. */
export interface ReadOptions extends FileOptions {
  /** First byte wanted. @default 0 */
  readonly offsetBytes?: number
  /** Bytes wanted; fewer come when the file ends before. @default to the end */
  readonly lengthBytes?: number
}
/**
 * How a file is written. None of its bytes is seen before the last has come; a file that is there keeps owner, attributes and
 * hard links.
 */
export interface WriteOptions extends FileOptions {
  /** Permission bits, 0 to 0o7777. @default those of the file it replaces, else 0o644 */
  readonly mode?: number
  /** Whether a file that is there may be replaced; if not, that is a WrennError `precondition_failed`. @default true */
  readonly overwrite?: boolean
  /**
   * `version` of an {@link OpenFile}: replaces the file only if it still is that one, else that is a WrennError `precondition_failed`.
   * @default whichever is there
   */
  readonly ifVersion?: string
}
/** A file as it was when it was opened. */
export interface OpenFile {
  /** Not reading it slows the sender down; cancel it when the rest is not wanted. It fails when the file is replaced meanwhile. */
  readonly stream: ReadableStream<Uint8Array>
  /** `undefined` for long files of `/proc` and `/sys`, which have no size. */
  readonly sizeBytes: number | undefined
  /** For `write` with `ifVersion`. `undefined` for files of `/proc` and `/sys`, and for 50 ms after a change. */
  readonly version: string | undefined
}
/** Who hears what a tar cannot carry. */
export interface ReadArchiveOptions extends FileOptions {
  /** Told of what an archive leaves out although it is whole, such as a socket: a sentence for people. */
  readonly onNote?: (note: string) => void
}
/** How deep a directory is listed. */
export interface ListOptions extends FileOptions {
  /** Levels below the directory, 0 to 64; 0 counts as 1. @default 1 */
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

  /**
   * The whole file, or the part that the options name, in memory.
   * @throws WrennError `is_a_directory`, `permission_denied`
   */
  async read(path: string, options: ReadOptions = {}): Promise<Uint8Array> {
    const response = await this.#open(path, options)
    return new Uint8Array(await response.arrayBuffer())
  }

  /** As {@link read}, with U+FFFD for what is not UTF-8; a byte order mark stays. */
  async readText(path: string, options: ReadOptions = {}): Promise<string> {
    return toText(await this.read(path, options))
  }

  /**
   * For what should not be in memory at once. Not reading it slows the sender down.
   * @example
   * for await (const chunk of await capsule.files.readStream('/var/log/syslog')) process.stdout.write(chunk)
   */
  async readStream(path: string, options: ReadOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#open(path, options)
    return response.body ?? new ReadableStream({ start: (controller) => controller.close() })
  }

  /**
   * A file with its version, for who reads it to change it.
   * @example
   * const { stream, version } = await capsule.files.open('/etc/motd')
   * const text = await new Response(stream).text()
   * if (version) await capsule.files.write('/etc/motd', `${text}!`, { ifVersion: version })
   * @throws WrennError `is_a_directory`, `permission_denied`
   */
  async open(path: string, options: FileOptions = {}): Promise<OpenFile> {
    const { user, ...call } = options
    const { body, headers } = await this.#transport.request('GET', this.#base, { ...call, query: { path, user } })
    const length = headers.get('content-length')
    return {
      stream: body ?? new ReadableStream({ start: (controller) => controller.close() }),
      sizeBytes: length === null ? undefined : Number(length),
      version: headers.get('etag') ?? undefined,
    }
  }

  #open(path: string, options: ReadOptions): Promise<Response> {
    const { user, offsetBytes, lengthBytes, ...call } = options
    const json = { path, user, offset: offsetBytes, length: lengthBytes }
    return this.#transport.request('POST', `${this.#base}/stream/read`, { ...call, json, idempotent: true })
  }

  /**
   * Replaces the file, making its parent directories.
   * Streaming a body needs HTTP/2 in browsers; pass a `Blob` there.
   * @example
   * await capsule.files.write('/root/run.sh', '#!/bin/sh\necho hello\n', { mode: 0o755 })
   * @throws WrennError `is_a_directory`, `permission_denied`, `disk_full`, `upload_interrupted` by a pause, `precondition_failed`
   */
  async write(path: string, content: FileContent, options: WriteOptions = {}): Promise<{ sizeBytes: number }> {
    const { user, mode, overwrite = true, ifVersion, ...call } = options
    const result = await this.#transport.json<UploadResult>('PUT', this.#base, {
      // An upload takes as long as it takes; only the caller knows how much there is.
      requestTimeoutMs: 0,
      ...call,
      query: { path, user, mode: mode?.toString(8).padStart(3, '0') },
      body: content,
      headers: {
        'Content-Type': 'application/octet-stream',
        ...(overwrite ? {} : { 'If-None-Match': '*' }),
        ...(ifVersion === undefined ? {} : { 'If-Match': ifVersion }),
      },
      // Sent again after its answer was lost, it would find its own file in the way.
      idempotent: overwrite && ifVersion === undefined && !(content instanceof ReadableStream),
    })
    return { sizeBytes: result.bytes }
  }

  /**
   * A file or directory with everything in it as a tar: modes, times, links and names of any bytes. Entries begin with the last
   * part of `path`. The stream fails, after all that could be read, when something is missing.
   * @example
   * await copy.files.writeArchive('/root', await capsule.files.readArchive('/root/project'))
   * @throws WrennError `file_not_found`, `permission_denied`, …; the stream: `permission_denied`, `conflict` for what changed
   * meanwhile, `transfer_interrupted` by a pause, `connection_lost`
   */
  async readArchive(path: string, options: ReadArchiveOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { user, onNote, ...call } = options
    const headers = { Accept: FRAMED_ARCHIVE_TYPE }
    const request = { ...call, query: { path, user }, headers }
    const response = await this.#transport.request('GET', `${this.#base}/archive`, request)
    return archiveStream(path, response, onNote)
  }

  /**
   * Unpacks a tar into a directory, which is made when it is not there. Modes, times and links are as in the tar; all of it belongs
   * to the user. After an error some of it may be there.
   * @throws WrennError `disk_full`, `permission_denied`, `invalid_request` for what is no whole tar, `transfer_interrupted`, …
   */
  async writeArchive(path: string, content: FileContent, options: FileOptions = {}): Promise<{ sizeBytes: number }> {
    const { user, ...call } = options
    const result = await this.#transport.json<UploadResult>('PUT', `${this.#base}/archive`, {
      requestTimeoutMs: 0,
      ...call,
      query: { path, user },
      body: content,
      headers: { 'Content-Type': ARCHIVE_TYPE },
      idempotent: !(content instanceof ReadableStream),
    })
    return { sizeBytes: result.bytes }
  }

  /** What is below the directory, itself left out. @throws WrennError `not_a_directory` */
  async list(path: string, options: ListOptions = {}): Promise<FileInfo[]> {
    const { depth, ...rest } = options
    const { entries } = await this.#ask<{ entries: FileEntry[] }>('list', { path, depth }, rest)
    return entries.map(fileInfo)
  }

  /** What is at the path; a symbolic link is told as such, with what it leads to in `targetType`. */
  async stat(path: string, options: FileOptions = {}): Promise<FileInfo> {
    const { entry } = await this.#ask<{ entry: FileEntry }>('stat', { path }, options)
    return fileInfo(entry)
  }

  /** Whether something is at the path. A parent that may not be entered is an error, not a no. */
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

  /** Renames, replacing a file that is there; parents of the destination are made. Gives the destination. */
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
