import { AppError } from '@wrenn/base'
import type { Capsule, ErrorBody, ExecResult } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from './store/database.js'
import { json, type Platform, startPlatform, startReplica } from './testing/harness.js'

let postgres: TestPostgres
let platform: Platform
let capsule: Capsule

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url })
  capsule = await platform.create()
}, 30_000)
afterEach(async () => {
  await platform[Symbol.asyncDispose]()
})

const at = (path: string): string => `/v1/capsules/${capsule.id}${path}`
const shell = (line: string, more: object = {}) =>
  platform.call('POST', at('/exec'), { cmd: '/bin/sh', args: ['-c', line], atomic: true, ...more })
const run = async (line: string, more: object = {}) => await json<ExecResult>(await shell(line, more), 200)
const plain = async (line: string) => await run(line, { atomic: false })
const onHost = () => {
  const found = platform.host.capsules.get(capsule.id)
  if (found === undefined) throw new Error('the host has no such capsule')
  return found
}

async function ended(): Promise<void> {
  const db = openDatabase({ url: platform.databaseUrl })
  try {
    await expect
      .poll(
        async () => {
          const { rows } = await sql<{ left: number }>`SELECT count(*) AS left FROM operations
            WHERE state = 'running'`.execute(db)
          return rows[0]?.left
        },
        { timeout: 20_000 },
      )
      .toBe(0)
  } finally {
    await db.destroy()
  }
}

describe('an atomic command', () => {
  it('that succeeds stays, and leaves no checkpoint', async () => {
    const result = await run('echo kept > note; echo out')
    expect(result).toMatchObject({ exit_code: 0, stdout: 'out\n', rolled_back: false })
    expect(await plain('cat note')).toMatchObject({ stdout: 'kept\n' })
    expect(onHost().checkpoints.size).toBe(0)
    expect(await json(await platform.call('GET', at('/checkpoints')), 200)).toEqual([])
    expect((await platform.get(capsule.id)).checkpoint_id).toBeUndefined()
  })

  it('that fails leaves no trace, and is answered as any other', async () => {
    await plain('echo before > note')
    const result = await run('rm note; echo gone > other; echo bad >&2; exit 7')
    expect(result).toMatchObject({ exit_code: 7, stderr: 'bad\n', rolled_back: true })
    expect(await plain('cat note; ls')).toMatchObject({ stdout: 'before\nnote\n' })
    expect(onHost().checkpoints.size).toBe(0)
    expect((await platform.get(capsule.id)).state).toBe('running')
  })

  it('that times out or dies by a signal leaves no trace', async () => {
    expect(await run('touch slow; sleep 600', { timeout_sec: 0.3 })).toMatchObject({
      exit_code: 124,
      timed_out: true,
      rolled_back: true,
    })
    expect(await run('touch killed; kill -9 $$')).toMatchObject({ exit_code: 137, signal: 9, rolled_back: true })
    expect(await plain('ls')).toMatchObject({ stdout: '' })
  })

  it('that cannot start changes nothing and is told as an error', async () => {
    const { error } = await json<ErrorBody>(await shell('true', { cwd: '/no/such' }), 400)
    expect(error.code).toBe('invalid_request')
    await ended()
    expect(onHost().checkpoints.size).toBe(0)
  })

  it('cannot be in the background', async () => {
    const { error } = await json<ErrorBody>(await shell('true', { background: true }), 400)
    expect(error).toMatchObject({ code: 'invalid_request', message: expect.stringContaining('atomic') })
  })

  it('refuses another one until it has ended', async () => {
    const first = shell('until [ -e go ]; do sleep 0.02; done')
    await expect.poll(() => onHost().processes.length).toBe(1)
    const { error } = await json<ErrorBody>(await shell('true'), 409)
    expect(error.code).toBe('in_use')
    await json(await platform.call('POST', at('/files/mkdir'), { path: 'go' }), 200)
    expect(await json(await first, 200)).toMatchObject({ exit_code: 0, rolled_back: false })
    expect(await run('true')).toMatchObject({ rolled_back: false })
  })

  it('runs to its end when its client hangs up', async () => {
    const hangUp = new AbortController()
    const asked = fetch(platform.url + at('/exec'), {
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json' },
      body: JSON.stringify({
        cmd: '/bin/sh',
        args: ['-c', 'until [ -e go ]; do sleep 0.02; done; touch made'],
        atomic: true,
      }),
      signal: hangUp.signal,
    })
    await expect.poll(() => onHost().processes.length).toBe(1)
    hangUp.abort()
    await expect(asked).rejects.toThrow()
    await json(await platform.call('POST', at('/files/mkdir'), { path: 'go' }), 200)
    await ended()
    expect(await plain('ls')).toMatchObject({ stdout: 'go\nmade\n' })
    expect(onHost().checkpoints.size).toBe(0)
  })

  it('waits with the capsule when that is paused in the middle', async () => {
    const asked = shell('until [ -e go ]; do sleep 0.02; done; exit 3')
    await expect.poll(() => onHost().processes.length).toBe(1)
    await json(await platform.call('POST', at('/pause?wait_sec=30')), 200)
    await json(await platform.call('POST', at('/resume?wait_sec=30')), 200)
    await json(await platform.call('POST', at('/files/mkdir'), { path: 'go' }), 200)
    expect(await json(await asked, 200)).toMatchObject({ exit_code: 3, rolled_back: true })
    expect(await plain('ls')).toMatchObject({ stdout: '' })
  })

  it('is told why it failed when its checkpoint cannot be made', async () => {
    platform.host.failNext('checkpoint', new AppError('disk_full', 'no space'))
    const { error } = await json<ErrorBody>(await shell('touch made'), 507)
    expect(error.code).toBe('disk_full')
    expect(await plain('ls')).toMatchObject({ stdout: '' })
    expect(await run('true')).toMatchObject({ rolled_back: false })
  })

  it('is undone in the end when the rollback fails at first', async () => {
    platform.host.failNext('rollback')
    expect(await run('touch made; exit 1')).toMatchObject({ exit_code: 1, rolled_back: true })
    expect(await plain('ls')).toMatchObject({ stdout: '' })
    expect(onHost().checkpoints.size).toBe(0)
  })

  it('whose guest dies is undone, and the capsule runs as before', async () => {
    await plain('echo before > note')
    const asked = shell('echo after > note; sleep 600', { timeout_sec: 0 })
    await expect.poll(() => onHost().processes.filter(({ running }) => running).length).toBe(1)
    platform.host.die(capsule.id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    const { error } = await json<ErrorBody>(await asked, 502)
    expect(error).toMatchObject({
      code: 'guest_died',
      message: 'The kernel panicked. The capsule is as it was before the command.',
      details: { rolled_back: true },
    })
    const after = await platform.get(capsule.id)
    expect(after).toMatchObject({ state: 'running' })
    expect(after.exit).toBeUndefined()
    expect(await plain('cat note')).toMatchObject({ stdout: 'before\n' })
    expect(onHost().checkpoints.size).toBe(0)
    expect(await run('true')).toMatchObject({ rolled_back: false })
  })

  it('is undone, whatever its team may run, when its capsule was already known to have ended', async () => {
    const asked = shell('touch made; sleep 600', { timeout_sec: 0 })
    await expect.poll(async () => (await plain('ls')).stdout).toBe('made\n')
    const db = openDatabase({ url: platform.databaseUrl })
    await sql`UPDATE teams SET max_running = 1`.execute(db)
    const held = platform.host.holdNext('rollback')
    platform.host.die(capsule.id, { cause: 'guest_panic', message: 'The kernel panicked.' })
    await held.reached
    await expect.poll(async () => (await platform.get(capsule.id)).state).toMatch(/error|resuming/)
    held.release()
    expect((await json<ErrorBody>(await asked, 502)).error.details).toMatchObject({ rolled_back: true })
    expect(await plain('ls')).toMatchObject({ stdout: '' })
    await sql`UPDATE teams SET max_running = NULL`.execute(db)
    await db.destroy()
  })

  it('ends with its capsule when that is destroyed', async () => {
    const asked = shell('sleep 600', { timeout_sec: 0 })
    await expect.poll(() => onHost().processes.length).toBe(1)
    expect((await platform.call('DELETE', at(''))).status).toBe(204)
    const { error } = await json<ErrorBody>(await asked, 502)
    expect(error).toMatchObject({
      code: 'guest_died',
      message: 'The capsule ended before the command could be undone.',
    })
    expect(error.details?.rolled_back).toBeUndefined()
    await ended()
  })
})

describe('an atomic command whose control plane dies', () => {
  /** As a crash does: the lease runs out without anybody having said how it went. */
  async function expire(): Promise<void> {
    const db = openDatabase({ url: platform.databaseUrl })
    await sql`UPDATE operations SET lease_until = now() - interval '1 second' WHERE state = 'running'`.execute(db)
    await db.destroy()
  }

  it('is undone by the next one, since nobody knows how it ended', async () => {
    const asked = shell('touch made; until [ -e go ]; do sleep 0.02; done', { timeout_sec: 0 })
    const lost = asked.then(
      () => 'answered',
      () => 'lost',
    )
    await expect.poll(async () => (await plain('ls')).stdout).toBe('made\n')
    await platform.restart()
    await lost
    await expire()
    await ended()
    expect(await plain('ls')).toMatchObject({ stdout: '' })
    expect(onHost().checkpoints.size).toBe(0)
    expect(await run('true')).toMatchObject({ rolled_back: false })
  }, 30_000)

  it('is answered also when another one puts the capsule back in the end', async () => {
    await using _ = await startReplica(platform)
    // Whichever of the two is faster tries again.
    for (let round = 0; round < 4; round++) {
      platform.host.failNext('rollback')
      expect(await run('touch made; exit 1')).toMatchObject({ exit_code: 1, rolled_back: true })
      expect(await plain('ls')).toMatchObject({ stdout: '' })
    }
  }, 30_000)

  it('is undone by another one that takes it over, and its own says so', async () => {
    const asked = shell('touch made; until [ -e go ]; do sleep 0.02; done', { timeout_sec: 0 })
    await expect.poll(async () => (await plain('ls')).stdout).toBe('made\n')
    await using _ = await startReplica(platform)
    await expire()
    await expect.poll(async () => (await plain('ls')).stdout).toBe('')
    const { error } = await json<ErrorBody>(await asked, 409)
    expect(error.code).toBe('rolled_back')
    await ended()
    expect(onHost().checkpoints.size).toBe(0)
  }, 30_000)
})
