import { once } from 'node:events'
import { request } from 'node:http'
import { text } from 'node:stream/consumers'
import { silentLogger } from '@wrenn/base'
import type { Capsule, ErrorBody } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createHostClient } from './host/transport.js'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform } from './testing/harness.js'

const FILE_BYTES = 24 * 1024 * 1024
/** An upload of at most this much is sent again by the control plane itself. */
const REPLAY_BYTES = 1024 * 1024

let postgres: TestPostgres
let platform: Platform
let link: ReturnType<typeof createHostClient>

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url })
  link = createHostClient(platform.host.address)
}, 30_000)
afterEach(async () => {
  link.close()
  await platform[Symbol.asyncDispose]()
})

const at = ({ id }: Capsule, path: string): string => `/v1/capsules/${id}${path}`

async function pausedByHost({ id }: Capsule): Promise<void> {
  await link.client.pauseCapsule({ capsuleId: id, reason: 'memory_pressure' })
}

const put = (capsule: Capsule, path: string, body: string | Uint8Array<ArrayBuffer>) =>
  fetch(`${platform.url}${at(capsule, `/files?path=${path}`)}`, {
    method: 'PUT',
    headers: { 'x-api-key': platform.key },
    body,
  })

describe('a capsule that its host pauses by itself', () => {
  it('wakes for a call that comes before its row has followed', async () => {
    const capsule = await platform.create({ auto_resume: true })
    await pausedByHost(capsule)
    const exec = await platform.call('POST', at(capsule, '/exec'), { cmd: 'echo', args: ['hi'] })
    expect(await json(exec, 200)).toMatchObject({ stdout: 'hi\n' })
    await pausedByHost(capsule)
    expect((await put(capsule, '/note', 'kept')).status).toBe(200)
    await pausedByHost(capsule)
    const list = await platform.call('POST', at(capsule, '/files/stat'), { path: '/note' })
    expect(await json(list, 200)).toMatchObject({ entry: { size: 4 } })
    await pausedByHost(capsule)
    const socket = platform.open(at(capsule, '/exec/stream'))
    await socket.send({ type: 'start', cmd: 'true', tag: 'mine' })
    expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 0 })
  })

  it('refuses such a call without auto_resume, and tells why it was paused', async () => {
    const capsule = await platform.create()
    await pausedByHost(capsule)
    const exec = await platform.call('POST', at(capsule, '/exec'), { cmd: 'echo', args: ['hi'] })
    expect(await json(exec, 409)).toMatchObject({ error: { code: 'invalid_state' } })
    await platform.until(capsule.id, 'paused')
    expect(await platform.get(capsule.id)).toMatchObject({ pause_reason: 'memory_pressure' })
  })
})

describe('a file on its way while the capsule is paused', () => {
  it('comes whole, without being asked for again', async () => {
    const capsule = await platform.create()
    const content = Buffer.alloc(
      FILE_BYTES,
      Uint8Array.from({ length: 251 }, (_, index) => index * 7),
    )
    expect((await put(capsule, '/large', content)).status).toBe(200)
    const download = await platform.call('GET', at(capsule, '/files?path=/large'))
    await json(await platform.call('POST', at(capsule, '/pause?wait_sec=30')), 200)
    await json(await platform.call('POST', at(capsule, '/resume?wait_sec=30')), 200)
    expect(Buffer.from(await download.arrayBuffer()).equals(content)).toBe(true)
  }, 30_000)

  it('is refused when it is too large to be sent again by itself, says so, and leaves nothing', async () => {
    const capsule = await platform.create({ auto_resume: true })
    const stat = (path: string) => platform.call('POST', at(capsule, '/files/stat'), { path })
    const part = new Uint8Array(2 * 1024 * 1024)
    const upload = request(`${platform.url}${at(capsule, '/files?path=/large')}`, {
      method: 'PUT',
      headers: { 'x-api-key': platform.key },
    })
    const answered = once(upload, 'response')
    upload.write(part)
    // What has come so far is in a file beside.
    const arrived = async () => (await json<{ entry: { size: number } }>(await stat('/large.upload'), 200)).entry.size
    await expect.poll(() => arrived().catch(() => 0)).toBeGreaterThan(REPLAY_BYTES)
    await pausedByHost(capsule)
    upload.end(part)
    const [answer] = await answered
    expect(answer.statusCode).toBe(409)
    const { error }: ErrorBody = JSON.parse(await text(answer))
    expect(error).toMatchObject({ code: 'upload_interrupted', hint: expect.stringContaining('Send the file again') })
    expect(error.message).toContain('/large')
    expect((await stat('/large')).status).toBe(404)
    expect((await put(capsule, '/large', part)).status).toBe(200)
  }, 30_000)
})

describe('input and output of a command', () => {
  it('of which only half was fed when the capsule was paused arrive whole', async () => {
    const capsule = await platform.create()
    const stdin = 'x'.repeat(4 * 1024 * 1024)
    const asked = platform.call('POST', at(capsule, '/exec'), {
      cmd: '/bin/sh',
      args: ['-c', 'until [ -e go ]; do sleep 0.02; done; wc -c'],
      stdin,
      timeout_sec: 0,
    })
    await expect.poll(() => platform.host.capsules.get(capsule.id)?.processes.length).toBe(1)
    await json(await platform.call('POST', at(capsule, '/pause?wait_sec=30')), 200)
    await json(await platform.call('POST', at(capsule, '/resume?wait_sec=30')), 200)
    await json(await platform.call('POST', at(capsule, '/files/mkdir'), { path: 'go' }), 200)
    const { stdout } = await json<{ stdout: string }>(await asked, 200)
    expect(Number(stdout)).toBe(stdin.length)
  }, 30_000)
})

describe('a stream over many pauses', () => {
  it('misses nothing and repeats nothing', async () => {
    const capsule = await platform.create()
    const socket = platform.open(at(capsule, '/exec/stream'))
    await socket.send({
      type: 'start',
      cmd: '/bin/sh',
      args: ['-c', 'i=0; until [ -e stop ]; do echo $i; i=$((i+1)); sleep 0.002; done'],
    })
    const seen = await socket.until('stdout')
    for (let round = 0; round < 10; round++) {
      await json(await platform.call('POST', at(capsule, '/pause?wait_sec=30')), 200)
      if (round === 5) {
        await platform.host.stop()
        await platform.host.start()
      }
      await json(await platform.call('POST', at(capsule, '/resume?wait_sec=30')), 200)
      seen.push(...(await socket.until('stdout')))
    }
    await json(await platform.call('POST', at(capsule, '/files/mkdir'), { path: 'stop' }), 200)
    seen.push(...(await socket.until('exit')))
    const lines = seen.filter(({ type }) => type === 'stdout').map(({ data }) => String(data))
    const numbers = lines.join('').trimEnd().split('\n').map(Number)
    expect(numbers).toEqual(numbers.map((_, index) => index))
    expect(seen.at(-1)).toMatchObject({ exit_code: 0, offset: lines.join('').length })
  }, 60_000)
})

describe('the row of a capsule in use', () => {
  it('says so while its stream is open, for control planes that do not see the stream', async () => {
    const capsule = await platform.create({ timeout_sec: 600 })
    const db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
    try {
      const old = new Date(Date.now() - 500_000)
      await db.updateTable('capsules').set({ last_active_at: old }).where('id', '=', capsule.id).execute()
      const socket = platform.open(at(capsule, '/exec/stream'))
      await socket.send({ type: 'start', cmd: 'true' })
      await socket.until('exit')
      await expect
        .poll(async () => Date.parse((await platform.get(capsule.id)).last_active_at ?? ''), { timeout: 10_000 })
        .toBeGreaterThan(old.getTime())
    } finally {
      await db.destroy()
    }
  })
})
