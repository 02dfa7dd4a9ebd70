import type { DiffResult, FileChange } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { Stream } from '../harness/stream.js'

const { platform, api } = usePlatform()
let capsule: TestCapsule

beforeAll(async () => {
  capsule = await api.create({ name: 'checkpoints' })
})
afterAll(async () => {
  await capsule?.destroy()
})

const names = async (): Promise<string[]> => (await capsule.checkpoints()).map(({ name }) => name)

describe('checkpoints', () => {
  it('are points in time to go back to, under the same id, by name or id', async () => {
    await capsule.text('echo one > /root/file; echo one > /dev/shm/memory; rm -f /root/later')
    await capsule.background('echo old begun; sleep 1000', { tag: 'old' })
    const first = await capsule.checkpoint('first')
    expect(first).toMatchObject({ capsule_id: capsule.id, name: 'first', current: true })
    expect(first.pause_window_ms).toBeGreaterThan(0)
    await capsule.text('echo two > /root/file; echo two > /dev/shm/memory; touch /root/later; pkill -x sleep')
    const second = await capsule.checkpoint('second')
    expect(second).toMatchObject({ parent_id: first.id, current: true })
    const back = await capsule.rollback('first')
    expect(back).toMatchObject({ id: capsule.id, state: 'running', checkpoint_id: first.id })
    const look = 'cat /root/file /dev/shm/memory; ls /root/later 2>/dev/null; pgrep -x sleep | wc -l'
    expect(await capsule.text(look)).toBe('one\none\n1')
    await capsule.rollback(second.id)
    expect(await capsule.text(look)).toBe('two\ntwo\n/root/later\n0')
  })

  it('form a tree: what is made after going back stands on where it went back to', async () => {
    const all = await capsule.checkpoints()
    const [first, second] = all
    expect(all.map(({ name, parent_id, current }) => [name, parent_id, current])).toEqual([
      ['first', undefined, false],
      ['second', first?.id, true],
    ])
    await capsule.rollback('first')
    const third = await capsule.checkpoint()
    expect(third).toMatchObject({ name: 'checkpoint-1', parent_id: first?.id })
    expect(await capsule.get()).toMatchObject({ checkpoint_id: third.id })
    await api.json('DELETE', `${capsule.path}/checkpoints/second`)
    await api.json('DELETE', `${capsule.path}/checkpoints/${third.id}`)
    expect(await names()).toEqual(['first'])
    const path = `${capsule.path}/checkpoints/${second?.id}`
    expect(await api.refusal('GET', path)).toMatchObject({ status: 404, code: 'checkpoint_not_found' })
    expect(await api.refusal('POST', `${path}/rollback`)).toMatchObject({ status: 404, code: 'checkpoint_not_found' })
  })

  it('have names that are theirs alone, and are made once for each idempotency key', async () => {
    const path = `${capsule.path}/checkpoints`
    expect(await api.refusal('POST', path, { json: { name: 'first' } })).toMatchObject({ status: 409 })
    for (const name of ['current', '../x', 'a b', '']) {
      expect(await api.refusal('POST', path, { json: { name } })).toMatchObject({
        status: 400,
        code: 'invalid_request',
      })
    }
    const headers = { 'Idempotency-Key': crypto.randomUUID() }
    const query = { wait_sec: '120' }
    const ask = (name: string) => api.call('POST', path, { json: { name }, headers, query })
    const [one, two] = [await ask('keyed'), await ask('keyed')]
    expect([one.status, two.status]).toEqual([201, 201])
    expect(two.json<{ id: string }>().id).toBe(one.json<{ id: string }>().id)
    expect((await ask('other')).json()).toMatchObject({ error: { code: 'idempotency_mismatch' } })
    expect(await names()).toEqual(['first', 'keyed'])
    await api.json('DELETE', `${path}/keyed`)
  })

  it('tell when they would survive a power loss, and how large they are', async () => {
    await capsule.text('head -c 3000000 /dev/urandom > /root/large')
    await capsule.checkpoint('large')
    await capsule.text('rm /root/large')
    const durable = await capsule.untilCheckpoint('large', ({ durable }) => durable)
    expect(durable).toMatchObject({ durable_at: expect.stringMatching(/Z$/), size_bytes: expect.any(Number) })
    await api.json('DELETE', `${capsule.path}/checkpoints/large`)
  })
})

describe('going back', () => {
  it('takes later processes away and tells whoever followed them; earlier ones go on from there', async () => {
    const old = `${capsule.path}/processes/old/stream?from_offset=0`
    await capsule.rollback('first')
    await using before = await Stream.open(platform, old)
    await before.untilOutput('old begun\n')
    await using later = await Stream.start(platform, capsule, 'exec/stream', {
      cmd: '/bin/sh',
      args: ['-c', 'echo later; sleep 1000'],
    })
    await later.untilOutput('later')
    const waiting = api.refusal('POST', `${capsule.path}/exec`, {
      json: { cmd: 'sleep', args: ['999'], timeout_sec: 600 },
    })
    await capsule.text('until pgrep -f "sleep 999"; do sleep 0.05; done')
    await capsule.rollback('first')
    const error = { type: 'error', code: 'rolled_back', fatal: true }
    expect((await later.until(({ type }) => type === 'error')).at(-1)).toMatchObject(error)
    expect(await waiting).toMatchObject({ status: 409, code: 'rolled_back', message: expect.stringMatching(/\.$/) })
    expect(await capsule.text('pgrep -xa sleep')).toMatch(/^\d+ sleep 1000$/)
    await api.json('DELETE', `${capsule.path}/processes/old`, { query: { signal: 'SIGKILL' } })
    expect((await before.untilExit()).exit).toMatchObject({ signal: 9 })
  })

  it('leaves a paused capsule paused', async () => {
    await capsule.pause()
    expect(await capsule.rollback('first')).toMatchObject({ state: 'paused' })
    const asleep = await capsule.checkpoint('asleep')
    expect(asleep.current).toBe(true)
    await capsule.resume()
    expect(await capsule.text('cat /root/file')).toBe('one')
    await api.json('DELETE', `${capsule.path}/checkpoints/asleep`)
  })

  it('makes a capsule run again whose guest has ended, from any checkpoint', async () => {
    await capsule.rollback('first')
    await capsule.checkpoint('newer')
    await capsule.endBy('echo c > /proc/sysrq-trigger')
    await capsule.untilState('error')
    const back = await capsule.rollback('first')
    expect([back.id, back.state, back.exit]).toEqual([capsule.id, 'running', undefined])
    expect(back.lifecycle_timings?.map(({ step }) => step)).toContain('restore')
    expect(await capsule.text('cat /root/file /dev/shm/memory')).toBe('one\none')
    await api.json('DELETE', `${capsule.path}/checkpoints/newer`)
  })

  it('mends a capsule whose /usr was removed', async () => {
    await capsule.rollback('first')
    await capsule.sh('rm -rf /usr', { timeout_sec: 200 })
    expect(await capsule.sh('python3 --version')).toMatchObject({ exit_code: 127 })
    const back = await capsule.rollback('first')
    expect(back).toMatchObject({ id: capsule.id, state: 'running' })
    expect(await capsule.text('python3 -c "print(6 * 7)"; cat /root/file')).toBe('42\none')
  })
})

describe('the difference between two points', () => {
  const diff = (a: string, b: string, query: Record<string, string> = {}): Promise<DiffResult> =>
    api.json<DiffResult>('GET', `${capsule.path}/checkpoints/${a}/diff/${b}`, { query })
  const short = ({ change, path, type, what }: FileChange): string =>
    `${change} ${type} ${path} ${what.join(',')}`.trim()
  /** All changes below /srv and /root, with their names as they are. */
  const expected = [
    'added directory /srv/added dir',
    'added file /srv/added dir/in it',
    'changed file /srv/content content',
    'added symlink /srv/link',
    'changed file /srv/mode mode',
    'added file /srv/new\nline',
    'added file /srv/odd-\ufffdff',
    'changed file /srv/owner owner',
    'removed directory /srv/removed dir',
    'removed file /srv/removed dir/in it',
    'added file /srv/schön 漢字',
  ]

  beforeAll(async () => {
    await capsule.rollback('first')
    await capsule.text(`cd /srv; mkdir 'removed dir'; touch 'removed dir/in it' content mode owner untouched touched`)
    await capsule.checkpoint('a')
    const steps = [
      'cd /srv',
      `rm -r 'removed dir'`,
      `mkdir 'added dir'`,
      `echo x > 'added dir/in it'`,
      'echo more >> content',
      'chmod 600 mode',
      'chown user owner',
      'ln -s /nowhere link',
      `touch "$(printf 'new\\nline')" 'schön 漢字'`,
      'touch touched',
      `touch "$(printf 'odd-\\377')"`,
    ]
    await capsule.text(steps.join(' && '))
    await capsule.checkpoint('b')
  })

  it('is exactly the files that were added, changed and removed', async () => {
    const { from, to, changes } = await diff('a', 'b', { path: '/srv' })
    const ids = new Map((await capsule.checkpoints()).map(({ id, name }) => [name, id]))
    expect([from, to]).toEqual([ids.get('a'), ids.get('b')])
    expect(changes.map(short)).toEqual(expected)
  })

  it('comes in pages, backwards, of a part only, and against now', async () => {
    const pages: string[] = []
    for (let cursor: string | undefined, more = true; more; ) {
      const page = await diff('a', 'b', { path: '/srv', limit: '3', ...(cursor === undefined ? {} : { cursor }) })
      expect(page.changes.length).toBeLessThanOrEqual(3)
      pages.push(...page.changes.map(({ path }) => path))
      cursor = page.next_cursor
      more = cursor !== undefined
    }
    expect(pages).toEqual((await diff('a', 'b', { path: '/srv' })).changes.map(({ path }) => path))
    expect((await diff('b', 'a', { path: '/srv/added dir' })).changes.map(short)).toEqual([
      'removed directory /srv/added dir',
      'removed file /srv/added dir/in it',
    ])
    expect((await diff('a', 'a')).changes).toEqual([])
    await capsule.text('echo now > /srv/now')
    expect((await diff('b', 'current', { path: '/srv' })).changes.map(short)).toEqual(['added file /srv/now'])
    await capsule.pause()
    expect((await diff('b', 'current', { path: '/srv' })).changes.map(short)).toEqual(['added file /srv/now'])
    await capsule.resume()
    const nowhere = `${capsule.path}/checkpoints/a/diff/nowhere`
    expect(await api.refusal('GET', nowhere)).toMatchObject({ status: 404, code: 'checkpoint_not_found' })
  })
})
