import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { StartResponseSchema } from '@wrenn/protocol/guest'
import { describe, expect, it } from 'vitest'
import { eventually } from '../testing/eventually.js'
import { jsonCodec } from './codec.js'
import { EventStream } from './event-stream.js'

type Events = EventStream<typeof StartResponseSchema>
const NEVER_MS = 600_000
const started = { event: { event: { case: 'start', value: { pid: 4711 } } } } as const

/** What a client has received when `send` is through, piece by piece, and the rest of the stream. */
async function received(
  send: (events: Events, pieces: readonly string[]) => Promise<void>,
): Promise<readonly string[]> {
  const pieces: string[] = []
  const server = createServer((_request, response) => {
    void send(new EventStream(StartResponseSchema, jsonCodec, response), pieces)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  // The server's address is one of a port, as it listens on one.
  const { port } = server.address() as AddressInfo
  const client = connect(port, '127.0.0.1', () =>
    client.write('POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'),
  )
  client.on('data', (bytes: Buffer) => pieces.push(bytes.toString('latin1')))
  await once(client, 'close')
  server.close()
  return pieces
}

describe('a stream of events that gathers', () => {
  it('sends all of a short answer in one piece', async () => {
    const pieces = await received(async (events) => {
      events.gather(NEVER_MS)
      await events.send(started)
      await new Promise((resolve) => setImmediate(resolve))
      events.gather(NEVER_MS)
      await events.send({ event: { event: { case: 'keepalive', value: {} } } })
      events.end()
    })
    expect(pieces).toEqual([expect.stringMatching(/^HTTP.*4711.*keepalive.*0\r\n\r\n$/s)])
  })

  it('sends what there is when the time is over', async () => {
    const pieces = await received(async (events, seen) => {
      events.gather(1)
      await events.send(started)
      await eventually('the start to arrive', () => seen.join('').includes('4711'))
      events.end()
    })
    expect(pieces.length).toBeGreaterThan(1)
  })

  it('waits for no end with more than the client has room for', async () => {
    const size = 8 * 2 ** 20
    const pieces = await received(async (events) => {
      events.gather(NEVER_MS)
      for (let sent = 0; sent < size; sent += 2 ** 20) await events.sendParts([Buffer.alloc(2 ** 20, 'x')], 2 ** 20)
      events.end()
    })
    expect(pieces.join('').length).toBeGreaterThan(size)
  })
})
