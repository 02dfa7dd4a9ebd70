import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { joinSockets } from './join-sockets.js'

const MANY_BYTES = 64 * 1024 * 1024

let servers: Server[] = []
/** What both ends hold of a pair that is joined in the middle. */
let left: Socket
let right: Socket
let passed = 0

async function pair(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const accepted = new Promise<Socket>((resolve) => server.once('connection', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return [connect({ host: '127.0.0.1', port, allowHalfOpen: true }).on('error', () => {}), await accepted]
}

beforeEach(async () => {
  const [[outerLeft, one], [outerRight, other]] = await Promise.all([pair(), pair()])
  left = outerLeft
  right = outerRight
  passed = 0
  joinSockets(one, other, () => passed++)
})
afterEach(() => {
  left.destroy()
  right.destroy()
  for (const server of servers) server.close()
  servers = []
})

/** Leaves the other direction open. */
function readAll(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    socket.on('data', (bytes) => {
      text += bytes
    })
    socket.once('end', () => resolve(text))
  })
}

describe('joined sockets', () => {
  it('pass bytes both ways, and each direction ends by itself', async () => {
    left.end('a question')
    expect(await readAll(right)).toBe('a question')
    expect(passed).toBeGreaterThan(0)
    const answer = readAll(left)
    right.write('an answer ')
    right.end('after the end')
    expect(await answer).toBe('an answer after the end')
  })

  it('stop reading from one whose other side does not read, and lose nothing', async () => {
    left.pause()
    let written = 0
    const block = Buffer.alloc(1024 * 1024)
    const more = (): void => {
      while (written < MANY_BYTES) {
        written += block.length
        if (!right.write(block)) return void right.once('drain', more)
      }
      right.end()
    }
    more()
    let before = -1
    const standsStill = (): boolean => {
      const isSame = written === before
      before = written
      return isSame
    }
    await expect.poll(standsStill, { interval: 100, timeout: 20_000 }).toBe(true)
    expect(written).toBeLessThan(MANY_BYTES)
    let read = 0
    for await (const chunk of left.resume()) read += chunk.length
    expect(read).toBe(MANY_BYTES)
  })

  it('break off together, and deliver what was said in good order before', async () => {
    const broken = new Promise((resolve) => right.once('error', resolve))
    left.write('hello')
    await new Promise((resolve) => right.once('data', resolve))
    left.resetAndDestroy()
    expect(await broken).toMatchObject({ code: 'ECONNRESET' })
  })
})
