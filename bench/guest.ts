import { randomBytes } from 'node:crypto'
import { Agent, type IncomingMessage, request } from 'node:http'
import { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { createClient, type Interceptor } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import { waitFor } from '@wrenn/base'
import { Process } from '@wrenn/protocol/guest'

const PORT = 49983
const SECRET_HEADER = 'x-wrenn-secret'
/** As in the host agent: a SYN sent before the vCPUs run is better given up and sent anew. */
const CONNECT_TIMEOUT_MS = 300
/** A file call that has not moved on for this long is stuck. */
const IDLE_TIMEOUT_MS = 120_000

/** A guest agent called directly, without host agent and control plane: the floor for commands and files. */
export class DirectGuest {
  readonly process
  readonly #agent = new Agent({ keepAlive: true, noDelay: true, timeout: IDLE_TIMEOUT_MS })
  readonly #address: string
  readonly #secret: string

  constructor(address: string, secret: string) {
    this.#address = address
    this.#secret = secret
    const authenticate: Interceptor = (next) => (call) => {
      call.header.set(SECRET_HEADER, secret)
      return next(call)
    }
    const baseUrl = `http://${address}:${PORT}`
    const options = { httpVersion: '1.1', baseUrl, nodeOptions: { agent: this.#agent } } as const
    this.process = createClient(Process, createConnectTransport({ ...options, interceptors: [authenticate] }))
  }

  async waitHealthy(): Promise<void> {
    const probe = async () => {
      const answer = await this.#call('GET', '/health').catch(() => undefined)
      return answer === undefined ? undefined : true
    }
    await waitFor(probe, { timeoutMs: 60_000, intervalMs: 5, what: 'the guest agent to answer' })
  }

  /** Runs a command as root to its end; gives how many bytes it wrote. */
  async exec(cmd: string, args: readonly string[] = []): Promise<number> {
    let bytes = 0
    const events = this.process.start({ process: { cmd, args: [...args] }, stdin: false, withOffsets: true })
    for await (const { event } of events) {
      if (event?.event.case === 'data') bytes += event.event.value.output.value?.length ?? 0
      if (event?.event.case !== 'end') continue
      if (event.event.value.exitCode !== 0) throw new Error(`${cmd} failed in the guest: ${event.event.value.status}`)
      return bytes
    }
    throw new Error(`The guest did not say how ${cmd} ended.`)
  }

  async execText(cmd: string, args: readonly string[]): Promise<string> {
    const chunks: Uint8Array[] = []
    for await (const { event } of this.process.start({ process: { cmd, args: [...args] }, stdin: false })) {
      if (event?.event.case === 'data' && event.event.value.output.value) chunks.push(event.event.value.output.value)
    }
    return Buffer.concat(chunks).toString('utf8')
  }

  async writeFile(path: string, body: Readable): Promise<void> {
    const query = new URLSearchParams({ path, username: 'root' })
    const answer = await this.#call('POST', `/files?${query}`, body)
    answer.resume()
    await finished(answer)
  }

  async readFile(path: string): Promise<number> {
    const query = new URLSearchParams({ path, username: 'root' })
    return await countBytes(await this.#call('GET', `/files?${query}`))
  }

  close(): void {
    this.#agent.destroy()
  }

  #call(method: string, path: string, body?: Readable): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const headers = {
        [SECRET_HEADER]: this.#secret,
        ...(body === undefined ? {} : { 'content-type': 'application/octet-stream' }),
      }
      const call = request({ host: this.#address, port: PORT, agent: this.#agent, method, path, headers }, (answer) => {
        const status = answer.statusCode ?? 500
        if (status < 300) resolve(answer)
        else reject(new Error(`The guest agent answered ${method} ${path} with ${status}.`))
      })
      call.once('error', reject)
      call.on('socket', (socket) => {
        if (!socket.connecting) return
        const timer = setTimeout(() => call.destroy(new Error('connect timed out')), CONNECT_TIMEOUT_MS)
        socket.once('connect', () => clearTimeout(timer))
        socket.once('close', () => clearTimeout(timer))
      })
      if (body === undefined) call.end()
      else body.pipe(call)
    })
  }
}

export async function countBytes(stream: AsyncIterable<Uint8Array>): Promise<number> {
  let bytes = 0
  for await (const chunk of stream) bytes += chunk.length
  return bytes
}

/** Random and longer than any compressor's window, so that a hop which compresses is seen. */
const BLOCK = randomBytes(256 * 1024)

/** A stream of `bytes` bytes made from one block, so that making them costs nothing. */
export function byteSource(bytes: number): Readable {
  return Readable.from(
    (function* () {
      for (let left = bytes; left > 0; left -= BLOCK.length) yield left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK
    })(),
    { objectMode: false },
  )
}
