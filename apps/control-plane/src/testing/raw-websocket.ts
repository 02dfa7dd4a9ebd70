import { once } from 'node:events'
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { waitFor } from '@wrenn/base'

/** A WebSocket client that does only what it is told: it answers neither pings nor a close. */
interface RawWebSocket extends AsyncDisposable {
  /** Sends a text frame with JSON, at most 125 bytes. */
  send(frame: object): void
  /** Waits until `text` has come, framing aside. */
  received(text: string): Promise<void>
  /** When the server has ended the connection. */
  readonly closed: Promise<void>
}

/** Opens one at an `http:` URL. */
export async function openRaw(url: string, headers: Readonly<Record<string, string>>): Promise<RawWebSocket> {
  const handshake = {
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': Buffer.alloc(16).toString('base64'),
  }
  const asked = request(url, { headers: { ...headers, ...handshake } }).end()
  const socket = await new Promise<Socket>((resolve, reject) => {
    asked.once('upgrade', (_answer, upgraded: Socket) => resolve(upgraded))
    asked.once('response', ({ statusCode }) => reject(new Error(`not upgraded: ${statusCode}`)))
    asked.once('error', reject)
  })
  let text = ''
  socket.on('data', (bytes: Buffer) => {
    text += bytes.toString('latin1')
  })
  socket.on('error', () => {}) // a close follows
  const closed = once(socket, 'close').then(() => {})
  return {
    send: (frame) => void socket.write(masked(Buffer.from(JSON.stringify(frame)))),
    received: async (wanted) => {
      await waitFor(async () => text.includes(wanted) || undefined, { timeoutMs: 20_000, what: wanted })
    },
    closed,
    [Symbol.asyncDispose]: async () => {
      socket.destroy()
      await closed
    },
  }
}

/** RFC 6455 §5.2, with a mask of zeros. */
function masked(payload: Buffer): Buffer {
  if (payload.length > 125) throw new Error('a frame for tests has at most 125 bytes')
  return Buffer.concat([Buffer.from([0x81, 0x80 | payload.length, 0, 0, 0, 0]), payload])
}
