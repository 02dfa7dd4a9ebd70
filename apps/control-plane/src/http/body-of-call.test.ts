import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { expect, it, vi } from 'vitest'
import { bodyOfCall } from './body-of-call.js'

async function* two() {
  yield new Uint8Array([1])
  yield new Uint8Array([2])
}

/** Nothing comes any more. */
async function* silent() {
  yield await new Promise<Uint8Array>(() => {})
}

/** An answer to a client that leaves once `onRequest` has run. */
async function answered(onRequest: (answer: ServerResponse) => void): Promise<void> {
  const server = createServer((_, answer) => {
    onRequest(answer)
    client.destroy()
    answer.once('close', () => server.close())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
  client.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  await new Promise((resolve) => server.once('close', resolve))
}

it('gives the bytes of a call, and ends it with them', async () => {
  const abort = vi.fn()
  const answer = { once: vi.fn(), destroyed: false }
  expect([...(await buffer(bodyOfCall(answer, { chunks: two(), abort })))]).toEqual([1, 2])
  await vi.waitFor(() => expect(abort).toHaveBeenCalled())
})

it('ends a call of which nothing was read', async () => {
  const abort = vi.fn()
  const body = bodyOfCall({ once: vi.fn(), destroyed: false }, { chunks: two(), abort })
  body.destroy()
  await vi.waitFor(() => expect(abort).toHaveBeenCalled())
})

it('ends a call whose client leaves, though the host says nothing', async () => {
  const abort = vi.fn()
  await answered((answer) => bodyOfCall(answer, { chunks: silent(), abort }).pipe(answer))
  await vi.waitFor(() => expect(abort).toHaveBeenCalled())
})

it('ends a call whose client has left already', async () => {
  const abort = vi.fn()
  let answer: ServerResponse | undefined
  await answered((one) => {
    answer = one
  })
  if (answer !== undefined) bodyOfCall(answer, { chunks: two(), abort })
  await vi.waitFor(() => expect(abort).toHaveBeenCalled())
})
