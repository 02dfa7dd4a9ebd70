import { createServer, type Server, type ServerResponse } from 'node:http'
import { type Duplex, Readable } from 'node:stream'
import { AppError } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { GUEST_PORT, GuestClient } from './client.js'
import { patienceOf } from './pulse.js'

const ADDRESS = '127.83.0.9'
const CHUNK = Buffer.alloc(64 * 1024, ' ')
/** What is sent before the host breaks off fills the buffers of both sides, too. */
const MOST_SENT_BYTES = 128 * 2 ** 20
const LITTLE_SENT_BYTES = 32 * 2 ** 20

let status = 200
let type = 'application/json'
let sentBytes = 0
let server: Server
const upgraded = new Set<Duplex>()
let client: GuestClient

/** An agent whose answers have no end. */
function pour(response: ServerResponse): void {
  while (!response.destroyed) {
    sentBytes += CHUNK.length
    if (response.write(CHUNK)) continue
    response.once('drain', () => pour(response))
    return
  }
}

beforeEach(async () => {
  sentBytes = 0
  status = 200
  type = 'application/json'
  server = createServer((request, response) => {
    request.resume()
    const named = status >= 400 ? { 'wrenn-error-code': 'host_unavailable' } : {}
    response.writeHead(status, { 'content-type': type, ...named })
    pour(response)
  })
  server.on('upgrade', (_request, socket) => {
    socket.on('error', () => {})
    socket.on('close', () => upgraded.delete(socket))
    socket.on('end', () => socket.end()).resume()
    upgraded.add(socket)
    socket.write(`HTTP/1.1 ${status} Words\r\nwrenn-error-code: host_unavailable\r\ntransfer-encoding: chunked\r\n\r\n`)
    socket.write('9\r\n{"message\r\n')
  })
  server.listen(GUEST_PORT, ADDRESS)
  await new Promise((resolve) => server.once('listening', resolve))
  client = new GuestClient(ADDRESS, 'first', patienceOf())
})
afterEach(async () => {
  client.close()
  server.closeAllConnections()
  for (const socket of upgraded) socket.destroy()
  await new Promise((resolve) => server.close(resolve))
})

const none = { headers: {} }
const calls: Readonly<Record<string, () => Promise<unknown>>> = {
  activity: () => client.activity(5_000),
  metrics: () => client.metrics(),
  envs: () => client.envs(),
  quiesce: () => client.quiesce({ sync: false, timeoutMs: 5_000 }),
  upload: () => client.writeFile('/x', '', Readable.from(['x']), none),
}

describe('an answer without an end', () => {
  it.each(Object.entries(calls))('is broken off: %s', async (_, call) => {
    await expect(call()).rejects.toMatchObject({ code: 'guest_error', message: expect.stringContaining('longer than') })
    expect(sentBytes).toBeLessThan(MOST_SENT_BYTES)
  })

  it.each(Object.entries(calls))('is broken off where it is a failure: %s', async (_, call) => {
    status = 500
    await expect(call()).rejects.toMatchObject({ message: 'The guest agent answered with status 500.' })
    expect(sentBytes).toBeLessThan(MOST_SENT_BYTES)
  })

  it('is no sign of health', async () => {
    await expect(client.waitHealthy(1_000)).rejects.toMatchObject({ code: 'guest_unreachable' })
  })

  it('gives no identity', async () => {
    await expect(client.identify({ hostname: 'x' }, 1_000)).rejects.toMatchObject({ code: 'guest_unreachable' })
  })

  it('is broken off where it is a list', { timeout: 60_000 }, async () => {
    type = 'application/proto'
    await expect(client.lists.process.list({})).rejects.toThrow(/larger than configured readMaxBytes/)
    expect(sentBytes).toBeLessThan(MOST_SENT_BYTES)
  })

  it('is broken off early where it is any other message', async () => {
    type = 'application/proto'
    await expect(client.filesystem.stat({ path: '/x' })).rejects.toThrow(/readMaxBytes 4194304/)
    expect(sentBytes).toBeLessThan(LITTLE_SENT_BYTES)
  })

  it.each(Object.entries(calls).filter(([name]) => name !== 'envs'))(
    'is broken off early where little is due: %s',
    async (_, call) => {
      await expect(call()).rejects.toMatchObject({ message: expect.stringContaining('longer than 65536 bytes') })
      expect(sentBytes).toBeLessThan(LITTLE_SENT_BYTES)
    },
  )

  it('is broken off where nothing of it is wanted', async () => {
    status = 416
    const file = await client.readFile('/x', '', { headers: { range: 'bytes=9-' }, statOnly: false })
    expect(file.status).toBe(416)
    await expect.poll(() => connections()).toBe(0)
  })
})

describe('the refusal of a line', () => {
  it.each([
    [502, 'port_closed', 'Nobody listens on port 49983 of the capsule.'],
    [404, 'guest_error', 'This capsule runs since before'],
    [401, 'guest_error', 'The guest agent answered with status 401.'],
    [503, 'guest_error', 'The guest agent answered with status 503.'],
  ])('of status %i is %s in our words, whatever its guest says', async (given, code, message) => {
    status = given
    const refused = client.dial(GUEST_PORT, new AbortController().signal).catch(AppError.from)
    expect(await refused).toMatchObject({ code, message: expect.stringContaining(message) })
    expect(await refused).not.toHaveProperty('cause')
    await expect.poll(() => connections()).toBe(0)
  })
})

async function connections(): Promise<number> {
  return await new Promise((resolve, reject) => {
    server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)))
  })
}
