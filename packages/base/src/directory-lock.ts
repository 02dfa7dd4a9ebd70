import { once } from 'node:events'
import { stat } from 'node:fs/promises'
import { createConnection, createServer, type Server } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, isErrno } from './errors.js'

/** How long a holder may take to answer: one that was killed is gone by then, one that is stopped or starved still holds. */
const SILENT_HOLDER_MS = 10_000
const LOOK_AGAIN_MS = 20

/**
 * A directory that one process has for itself. It is a name that only one can listen on, and that the kernel frees when that
 * one dies, however it dies; unix(7), "abstract". Whoever comes second asks the holder: only one that lives answers, so that
 * one which was just killed is waited for and not taken for a living one.
 */
export class DirectoryLock implements AsyncDisposable {
  readonly #server: Server

  private constructor(server: Server) {
    this.#server = server
  }

  /**
   * @param kind tells the locks of a directory apart
   * @throws AppError `conflict`, with the holder's pid in `details.pid` when it told it; `ENOENT` when there is no directory
   */
  static async take(kind: string, dir: string): Promise<DirectoryLock> {
    const name = await lockName(kind, dir)
    const deadline = performance.now() + SILENT_HOLDER_MS
    for (;;) {
      const server = await listen(name)
      if (server) return new DirectoryLock(server)
      const pid = await askHolder(name, Math.max(1, deadline - performance.now()))
      if (pid !== undefined || performance.now() >= deadline) throw taken(dir, pid)
      await delay(LOOK_AGAIN_MS)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#server.listening) return
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }
}

/** All 108 bytes that there are: Node.js 20 fills a shorter name up with zeros, 22 does not, and theirs would be two locks. */
async function lockName(kind: string, dir: string): Promise<string> {
  const { dev, ino } = await stat(dir)
  return `\0${`wrenn-${kind}-${dev}-${ino}`.padEnd(107, '.')}`
}

async function listen(name: string): Promise<Server | undefined> {
  const server = createServer((socket) => {
    socket.on('error', () => {}) // whoever asked has left
    socket.end(`${process.pid}\n`)
  })
  server.listen(name)
  try {
    await once(server, 'listening')
    server.unref()
    return server
  } catch (error) {
    if (isErrno(error, 'EADDRINUSE')) return undefined
    throw error
  }
}

/** The pid that the holder answers; `undefined` when it is gone, or says nothing in time. */
async function askHolder(name: string, timeoutMs: number): Promise<number | undefined> {
  const socket = createConnection(name)
  socket.setTimeout(timeoutMs, () => socket.destroy())
  let said = ''
  socket.on('data', (chunk: Buffer) => {
    said += chunk.toString('latin1')
  })
  socket.on('error', () => {}) // a holder that died meanwhile; `close` follows
  await new Promise((resolve) => socket.once('close', resolve))
  const pid = Number.parseInt(said, 10)
  return pid > 0 ? pid : undefined
}

function taken(dir: string, pid: number | undefined): AppError {
  const who = pid === undefined ? 'a process that does not answer' : `the process ${pid}`
  return new AppError('conflict', `${dir} is in use by ${who}.`, { details: pid === undefined ? {} : { pid } })
}
