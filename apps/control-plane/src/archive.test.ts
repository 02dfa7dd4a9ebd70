import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '@wrenn/base'
import {
  ArchiveUnframer,
  type Capsule,
  type ErrorBody,
  type FileEntryAnswer,
  FRAMED_ARCHIVE_TYPE,
} from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createHostClient } from './host/transport.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

/** An upload of at most this much is sent again by the control plane itself. */
const REPLAY_BYTES = 1024 * 1024

let postgres: TestPostgres
let platform: Platform
let dir: string
let capsule: Capsule

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url })
  dir = await mkdtemp(join(tmpdir(), 'wrenn-archive-'))
  await mkdir(join(dir, 'tree'))
  await writeFile(join(dir, 'tree/secret'), 'secret', { mode: 0o600 })
  await symlink('secret', join(dir, 'tree/link'))
  capsule = await platform.create()
}, 30_000)
afterEach(async () => {
  await platform[Symbol.asyncDispose]()
  await rm(dir, { recursive: true, force: true })
})

const route = (path: string): string => `/v1/capsules/${capsule.id}/files/archive?path=${encodeURIComponent(path)}`
const tar = (): Buffer<ArrayBuffer> =>
  Buffer.from(execFileSync('tar', ['--create', '--file=-', 'tree'], { cwd: dir, maxBuffer: 2 ** 26 }))

const put = (
  path: string,
  body: Buffer<ArrayBuffer> | string | ReadableStream<Uint8Array>,
  headers: Record<string, string> = {},
): Promise<Response> =>
  fetch(platform.url + route(path), {
    method: 'PUT',
    headers: { 'x-api-key': platform.key, ...headers },
    body,
    duplex: 'half',
  } as RequestInit) // `duplex` is in no type of this Node.js

const get = (path: string, accept = '*/*'): Promise<Response> =>
  platform.call('GET', route(path), undefined, { accept })

/** A file that is larger than all that lies between the host and a client that does not read. */
async function writeLarge(): Promise<void> {
  const body = Buffer.alloc(48 * 2 ** 20, 1)
  const path = `/v1/capsules/${capsule.id}/files?path=/large/file`
  const headers = { 'x-api-key': platform.key }
  await json(await fetch(platform.url + path, { method: 'PUT', headers, body }), 200)
}

/** Whether so much of a file has arrived that the control plane no longer keeps the upload to send it again. */
const hasArrived = (path: string) => async (): Promise<true | undefined> => {
  const answer = await platform.call('POST', `/v1/capsules/${capsule.id}/files/stat`, { path })
  if (answer.status !== 200) return undefined
  const { entry } = await json<FileEntryAnswer>(answer, 200)
  return entry.size > REPLAY_BYTES ? true : undefined
}

async function pausedByHost(): Promise<void> {
  const link = createHostClient(platform.host.address)
  await link.client.pauseCapsule({ capsuleId: capsule.id, reason: 'memory_pressure' })
  link.close()
}

describe('an archive', () => {
  it('is unpacked where it is put and comes back the same', async () => {
    const body = tar()
    expect(await json(await put('/srv/new', body), 200)).toEqual({ path: '/srv/new', bytes: body.length })
    const answer = await get('/srv/new/tree')
    expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/x-tar'])
    execFileSync('tar', ['-x', '-p', '-C', dir, '--transform=s,^tree,back,'], {
      input: Buffer.from(await answer.arrayBuffer()),
    })
    expect((await readdir(join(dir, 'back'))).sort()).toEqual(['link', 'secret'])
    expect((await stat(join(dir, 'back/secret'))).mode & 0o777).toBe(0o600)
  })

  it('is refused with the reason before it begins', async () => {
    expect((await json<ErrorBody>(await get('/missing'), 404)).error.code).toBe('file_not_found')
    expect((await json<ErrorBody>(await put('/srv', 'no tar'), 400)).error.code).toBe('invalid_request')
    const packed = await put('/srv', 'x', { 'content-encoding': 'gzip' })
    expect((await json<ErrorBody>(packed, 415)).error.code).toBe('unsupported_media_type')
    expect((await platform.call('HEAD', route('/srv'))).status).toBe(405)
  })

  it('in frames has its end, and says what it lacks', async () => {
    await put('/srv', tar())
    const unframer = new ArchiveUnframer()
    const answer = await get('/srv/tree', FRAMED_ARCHIVE_TYPE)
    expect(answer.headers.get('content-type')).toBe(FRAMED_ARCHIVE_TYPE)
    const bytes = [...unframer.push(new Uint8Array(await answer.arrayBuffer()))]
    expect(Buffer.concat(bytes).length % 512).toBe(0)
    expect(unframer.end).toEqual({ notes: [] })
  })

  it('that a pause interrupts is cut, or says so in its last frame', async () => {
    await writeLarge()
    const [cut, framed] = [await get('/large'), await get('/large', FRAMED_ARCHIVE_TYPE)]
    await pausedByHost()
    await expect(cut.arrayBuffer()).rejects.toThrow()
    const unframer = new ArchiveUnframer()
    for await (const piece of framed.body ?? []) Array.from(unframer.push(piece))
    expect(unframer.end?.error).toMatchObject({ code: 'transfer_interrupted' })
  })

  it('that is put while a pause comes is refused, and says what is left', async () => {
    await writeFile(join(dir, 'tree/large'), Buffer.alloc(8 * 2 ** 20, 1))
    const whole = tar()
    const half = whole.length / 2
    const source = { controller: undefined as ReadableStreamDefaultController<Uint8Array> | undefined }
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => {
        source.controller = controller
        controller.enqueue(whole.subarray(0, half))
      },
    })
    const answer = put('/up', body)
    await waitFor(hasArrived('/up/tree/large'), { timeoutMs: 20_000, what: 'the file to arrive' })
    await pausedByHost()
    source.controller?.enqueue(whole.subarray(half))
    source.controller?.close()
    expect((await json<ErrorBody>(await answer, 409)).error.code).toBe('transfer_interrupted')
  })

  it('is no secret of another team', async () => {
    const headers = { 'x-api-key': 'wrong' }
    expect((await fetch(platform.url + route('/srv'), { headers })).status).toBe(401)
  })
})
