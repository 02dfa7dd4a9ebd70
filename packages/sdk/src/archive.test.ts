import { endFrame, FRAMED_ARCHIVE_TYPE, frameHead } from '@wrenn/protocol'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { type Capsule, Wrenn } from './index.js'

let server: FakeServer
let found: Capsule
let body: Uint8Array
let isCut: boolean

beforeEach(async () => {
  isCut = false
  server = await new FakeServer().start()
  server.handler = ({ method, path }, response) => {
    if (!path.includes('/archive')) return sendJson(response, capsule('running'))
    if (method === 'PUT') return sendJson(response, { path: '/srv', bytes: 3 })
    response.writeHead(200, { 'content-type': FRAMED_ARCHIVE_TYPE })
    response.write(body, () => (isCut ? response.destroy() : response.end()))
  }
  found = await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)
})
afterEach(() => server[Symbol.asyncDispose]())

const framed = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]))
const data = Uint8Array.of(1, 2, 3)

/** What can be read of an archive, and how that ended. */
async function read(onNote?: (note: string) => void): Promise<{ bytes: number[]; error: unknown }> {
  const bytes: number[] = []
  try {
    const reader = (await found.files.readArchive('/srv/ü', onNote ? { onNote } : {})).getReader()
    for (let next = await reader.read(); !next.done; next = await reader.read()) bytes.push(...next.value)
    return { bytes, error: undefined }
  } catch (error) {
    return { bytes, error }
  }
}

describe('an archive', () => {
  it('is the bytes between the frames, with what it leaves out told', async () => {
    body = framed(frameHead(3), data, frameHead(3), data, endFrame({ notes: ['s: socket ignored'] }))
    const notes: string[] = []
    expect(await read((note) => notes.push(note))).toEqual({ bytes: [1, 2, 3, 1, 2, 3], error: undefined })
    expect(notes).toEqual(['s: socket ignored'])
    const asked = server.seen.at(-1)
    expect([asked?.path, asked?.headers.accept]).toEqual([
      `/v1/capsules/${ID}/files/archive?path=%2Fsrv%2F%C3%BC`,
      FRAMED_ARCHIVE_TYPE,
    ])
  })

  it('gives all it has before it fails with the reason', async () => {
    const error = { code: 'permission_denied', message: 'secret: Cannot open' }
    body = framed(frameHead(3), data, endFrame({ notes: [], error }))
    expect(await read()).toMatchObject({ bytes: [1, 2, 3], error })
  })

  it.each([false, true])('without an end is not taken for a whole one (connection cut: %s)', async (cut) => {
    isCut = cut
    body = framed(frameHead(3), data)
    expect((await read()).error).toMatchObject({ code: 'connection_lost' })
  })

  it('in damaged frames gives what came before them', async () => {
    body = framed(frameHead(3), data, Uint8Array.of(9, 9, 9, 9, 9))
    expect(await read()).toMatchObject({ bytes: [1, 2, 3], error: { code: 'guest_error' } })
  })

  it('is sent as it is', async () => {
    expect(await found.files.writeArchive('/srv', 'tar', { user: 'user' })).toEqual({ sizeBytes: 3 })
    const { method, path, headers, body: sent } = server.seen.at(-1) ?? {}
    expect([method, path, headers?.['content-type'], sent]).toEqual([
      'PUT',
      `/v1/capsules/${ID}/files/archive?path=%2Fsrv&user=user`,
      'application/x-tar',
      'tar',
    ])
  })
})
