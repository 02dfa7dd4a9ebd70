// biome-ignore-all lint/correctness/noNodejsModules: part of the tests, which run in Node.js
import { once } from 'node:events'
import { openAsBlob } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, ID, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

const CHUNK_BYTES = 2 ** 20
const UPLOAD_BYTES = 192 * CHUNK_BYTES
/** Chunks that were sent wait for the garbage collector, which begins at about 64 MiB of them. */
const KEPT_BYTES = 128 * CHUNK_BYTES

let server: Server
let dir: string
let wrenn: Wrenn
/** The most that buffers held while an upload was received. */
let peakBytes: number
let conditions: (string | undefined)[]

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-sdk-upload-'))
  peakBytes = 0
  conditions = []
  server = createServer(async (request, response) => {
    if (request.method === 'GET') return sendJson(response, capsule('running'))
    conditions.push(request.headers['if-none-match'])
    let bytes = 0
    for await (const chunk of request) {
      bytes += chunk.length
      peakBytes = Math.max(peakBytes, process.memoryUsage().arrayBuffers)
    }
    sendJson(response, { path: '/big', bytes })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo // it listens on TCP
  wrenn = new Wrenn({ apiUrl: `http://127.0.0.1:${port}`, apiKey: KEY })
})

afterEach(async () => {
  server.closeAllConnections()
  server.close()
  await rm(dir, { recursive: true, force: true })
})

function chunks(): ReadableStream<Uint8Array> {
  let left = UPLOAD_BYTES
  return new ReadableStream({
    pull: (controller) => {
      if (left === 0) return controller.close()
      left -= CHUNK_BYTES
      controller.enqueue(new Uint8Array(CHUNK_BYTES))
    },
  })
}

describe('a file that is sent', () => {
  it('as a stream is not kept in memory', async () => {
    const before = process.memoryUsage().arrayBuffers
    const { files } = await wrenn.capsules.get(ID)
    expect(await files.write('/big', chunks())).toEqual({ sizeBytes: UPLOAD_BYTES })
    expect(peakBytes - before).toBeLessThan(KEPT_BYTES)
  })

  it('replaces one that is there unless told not to', async () => {
    const { files } = await wrenn.capsules.get(ID)
    await files.write('/big', 'x')
    await files.write('/big', 'x', { overwrite: false })
    expect(conditions).toEqual([undefined, '*'])
  })

  it('as a blob is not kept in memory', async () => {
    const path = join(dir, 'big')
    await writeFile(path, Buffer.alloc(UPLOAD_BYTES))
    const before = process.memoryUsage().arrayBuffers
    const { files } = await wrenn.capsules.get(ID)
    expect(await files.write('/big', await openAsBlob(path))).toEqual({ sizeBytes: UPLOAD_BYTES })
    expect(peakBytes - before).toBeLessThan(KEPT_BYTES)
  })
})
