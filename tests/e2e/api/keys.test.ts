import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AuditEntry, Capsule } from '@wrenn/protocol'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Api, useCapsule, usePlatform } from '../harness/api.js'
import { wrenn } from '../harness/platform.js'

const { platform, api } = usePlatform()
const capsule = useCapsule()

async function run<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await wrenn(platform, [...args, '--json'])
  if (code !== 0) throw new Error(`wrenn ${args.join(' ')}: ${code} ${stderr}`)
  return JSON.parse(stdout)
}

interface Key {
  readonly id: string
  readonly key: string
}

const create = (...args: string[]) => run<Key>('key', 'create', ...args)

describe('a key that the command line made', () => {
  it('may do what its scopes say, until it is revoked', async () => {
    const reader = await create('reader', '--scope', 'read', '--expires', '1h')
    const worker = await create('worker', '--scope', 'capsules', '--format', 'e2b')
    expect([reader.key, worker.key]).toEqual([
      expect.stringMatching(/^wrn_[0-9a-f]{32}$/),
      expect.stringMatching(/^e2b_[0-9a-f]{40}$/),
    ])
    const [asReader, asWorker] = [new Api(platform, reader.key), new Api(platform, worker.key)]
    const command = { json: { cmd: 'echo', args: ['hello'] } }
    expect((await asReader.json<Capsule>('GET', capsule().path)).id).toBe(capsule().id)
    expect(await asReader.refusal('POST', `${capsule().path}/exec`, command)).toMatchObject({
      status: 403,
      code: 'forbidden',
    })
    expect(await asWorker.json('POST', `${capsule().path}/exec`, command)).toMatchObject({ stdout: 'hello\n' })
    expect(await asWorker.refusal('POST', '/v1/api-keys', { json: {} })).toMatchObject({ status: 403 })
    await run('key', 'revoke', reader.id, worker.id)
    for (const ended of [asReader, asWorker]) {
      expect(await ended.refusal('GET', capsule().path)).toMatchObject({ status: 401, code: 'unauthorized' })
    }
    const left = await run<{ id: string }[]>('key', 'ls')
    expect(left.map(({ id }) => id)).not.toContain(reader.id)
  })
})

describe('the audit trail', () => {
  it('tells what a key did to a capsule, and an export of it can be verified, and cannot be forged', async () => {
    const { id: keyId, key } = await create('audited', '--scope', 'capsules')
    const worker = new Api(platform, key)
    await worker.json('POST', `${capsule().path}/pause`, { query: { wait_sec: '60' } })
    await worker.json('POST', `${capsule().path}/resume`, { query: { wait_sec: '60' } })
    const entries = await run<AuditEntry[]>('audit', 'ls', '--resource', capsule().id, '--actor', keyId)
    expect(entries.map(({ action, outcome }) => `${action} ${outcome}`)).toEqual([
      'capsule.resume success',
      'capsule.resume accepted',
      'capsule.pause success',
      'capsule.pause accepted',
    ])
    const { stdout: lines } = await wrenn(platform, ['audit', 'export'])
    const folder = await mkdtemp(join(tmpdir(), 'wrenn-test-audit-'))
    onTestFinished(() => rm(folder, { recursive: true }))
    const file = join(folder, 'trail.jsonl')
    await writeFile(file, lines)
    const verified = await run<{ entries: number; last_hash: string }>('audit', 'verify', file)
    expect(verified.entries).toBe(lines.trimEnd().split('\n').length)
    await writeFile(file, lines.replace('capsule.pause', 'capsule.pose'))
    const forged = await wrenn(platform, ['audit', 'verify', file])
    expect([forged.code, forged.stdout]).toEqual([1, ''])
    expect(forged.stderr).toContain('audit_broken')
    expect(await api.refusal('GET', '/v1/audit-logs', { query: { cursor: 'x' } })).toMatchObject({ status: 400 })
  })
})
