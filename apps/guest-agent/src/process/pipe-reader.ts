import { readSync } from 'node:fs'
import { type OnReadOpts, Socket, type SocketConstructorOpts } from 'node:net'
import { isErrno } from '@wrenn/base'

const CHUNK_BYTES = 64 * 1024
/** The most that a pipe can hold, unless root raised /proc/sys/fs/pipe-max-size. */
const PIPE_BYTES = 1024 * 1024
/** From this size on the read buffer itself is handed over instead of a copy. */
const HAND_OVER_BYTES = CHUNK_BYTES / 2

/**
 * Where every reader reads to while its output is small, which is copied out at once: most processes say little, and each new buffer
 * of this size is a fourth of a young heap to the collector.
 */
const SHARED_SLAB = Buffer.allocUnsafeSlow(CHUNK_BYTES)

/** Reads the agent's end of an output pipe, with back-pressure and a synchronous drain for the moment its process exits. */
export class PipeReader {
  readonly #fd: number
  readonly #socket: Socket
  #onChunk: ((chunk: Buffer) => void) | undefined
  #paused = false
  #ended = false
  #slab = SHARED_SLAB

  /** `onChunk` owns each chunk it gets. `onEnd` runs once, when no process holds the pipe any more. */
  constructor(fd: number, onChunk: (chunk: Buffer) => void, onEnd: () => void) {
    this.#fd = fd
    this.#onChunk = onChunk
    // The type declarations have `onread` for connecting sockets only; the constructor takes it as well.
    const options: SocketConstructorOpts & { onread: OnReadOpts } = {
      fd,
      readable: true,
      writable: false,
      onread: { buffer: () => this.#slab, callback: (length) => this.#take(length) },
    }
    this.#socket = new Socket(options)
    this.#socket.on('error', () => {
      // Reading a pipe fails only when it is gone; 'close' follows.
    })
    this.#socket.once('close', () => {
      this.#ended = true
      onEnd()
    })
    this.#socket.resume()
  }

  pause(): void {
    if (this.#paused || this.#ended) return
    this.#paused = true
    this.#socket.pause()
  }

  resume(): void {
    if (!this.#paused || this.#ended) return
    this.#paused = false
    this.#socket.resume()
  }

  /** Delivers what is in the pipe now: all that an exited process wrote, though not what another one goes on writing. */
  drain(): void {
    this.#paused = true
    this.#socket.pause()
    // A destroyed socket has closed its descriptor, though 'close' comes later: the number may be another connection's already.
    for (let drained = 0; drained < PIPE_BYTES && !this.#ended && !this.#socket.destroyed; ) {
      const length = this.#readNow()
      if (length === 0) return
      drained += length
      // Copied: the buffer that the socket goes on reading to must not be anybody's.
      this.#onChunk?.(Buffer.from(SHARED_SLAB.subarray(0, length)))
    }
  }

  /** From now on output is read and thrown away, so that background children neither block nor die of SIGPIPE. */
  discard(): void {
    this.#onChunk = undefined
    this.#paused = false
    this.#socket.resume()
  }

  close(): void {
    this.#socket.destroy()
  }

  #take(length: number): boolean {
    const onChunk = this.#onChunk
    if (onChunk === undefined) return true
    const chunk = this.#slab.subarray(0, length)
    const isLarge = length >= HAND_OVER_BYTES
    const isOwn = this.#slab !== SHARED_SLAB
    if (isLarge) this.#slab = Buffer.allocUnsafeSlow(CHUNK_BYTES)
    onChunk(isLarge && isOwn ? chunk : Buffer.from(chunk))
    return !this.#paused
  }

  #readNow(): number {
    try {
      return readSync(this.#fd, SHARED_SLAB, 0, CHUNK_BYTES, null)
    } catch (error) {
      if (isErrno(error, 'EAGAIN', 'EBADF')) return 0
      throw error
    }
  }
}
