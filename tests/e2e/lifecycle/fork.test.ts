import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, usePlatform } from '../harness/api.js'
import { readWitness, STOP_FILE, WITNESS } from '../harness/counting.js'
import { outputOf, Stream } from '../harness/stream.js'

const { platform, api } = usePlatform()
let source: TestCapsule
let copies: TestCapsule[] = []

/** A server in one process, which has what was set in it: memory of a program as its users see it. */
const KEEPER = `
import os, socketserver
kept = {"origin": os.urandom(8).hex()}
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        words = self.rfile.readline().decode().split()
        if len(words) == 2: kept[words[0]] = words[1]
        text = os.urandom(16).hex() if words[0] == "random" else kept.get(words[0], "-")
        self.wfile.write((text + "\\n").encode())
socketserver.TCPServer(("127.0.0.1", 8080), Handler).serve_forever()
`
const ASK = (words: string) => `bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080; echo ${words} >&3; cat <&3'`
const READY = `until ${ASK('origin')} 2>/dev/null; do sleep 0.1; done`
/** Everything by which copies must differ, a line each. */
const IDENTITY = [
  'hostname',
  'cat /etc/machine-id',
  'head -c 16 /dev/urandom | od -An -tx1',
  'cat /proc/sys/kernel/random/uuid',
  `python3 -c 'import random, secrets; print(random.random(), secrets.token_hex())'`,
  ASK('random'),
]

beforeAll(async () => {
  source = await api.create({ name: 'source', labels: { kind: 'source' }, envs: { COLOUR: 'green' } })
  await source.background('', { cmd: 'python3', args: ['-c', KEEPER], tag: 'keeper' })
  await source.background('', { cmd: 'python3', args: ['-c', WITNESS], tag: 'witness' })
  await source.text('head -c 2000000 /dev/urandom > /root/file; cp /root/file /dev/shm/file')
  await source.text(READY)
})
afterAll(async () => {
  await Promise.all([source, ...copies].map((capsule) => capsule?.destroy()))
})

const untilWitness = async (capsule: TestCapsule): Promise<string> => {
  await using stream = await Stream.open(platform, `${capsule.path}/processes/witness/stream?from_offset=0`)
  const frames = await stream.until((frame) => outputOf([frame]).includes('\n'))
  return outputOf(frames).toString()
}

describe('a fork', () => {
  it('has memory, processes and files of its source, which stands still for a moment and goes on', async () => {
    await using stream = await Stream.open(platform, `${source.path}/processes/witness/stream?from_offset=0`)
    await stream.until((frame) => outputOf([frame]).includes('\n'))
    const { result, copies: made } = await source.fork()
    copies = made
    const [copy] = made
    if (copy === undefined || made.length !== 1) throw new Error('A fork makes one copy by default.')
    expect(copy.made).toMatchObject({ state: 'running', parent_id: source.id, labels: { kind: 'source' } })
    expect(copy.made.name).toBeUndefined()
    expect(result.pause_window_ms).toBeGreaterThan(0)
    expect(result.timings.map(({ step }) => step)).toContain('copies')
    const hashes = 'sha256sum /root/file /dev/shm/file'
    expect(await copy.text(hashes)).toBe(await source.text(hashes))
    expect(await copy.text(ASK('origin'))).toBe(await source.text(ASK('origin')))
    expect(await copy.text('echo $COLOUR')).toBe('green')
    // What the process said before the fork is there, and it speaks on, in both.
    const { hash } = readWitness(await untilWitness(source))
    await copy.text(`touch ${STOP_FILE}`)
    await source.text(`touch ${STOP_FILE}`)
    await using end = await Stream.open(platform, `${copy.path}/processes/witness/stream?from_offset=0`)
    expect(readWitness((await end.untilExit()).output.toString()).hash).toBe(hash)
    expect(await source.get()).toMatchObject({ state: 'running', name: 'source' })
  })

  it('shares nothing with its source from then on', async () => {
    const [copy] = copies
    await copy?.text(`echo copy > /root/mine; ${ASK('who copy')}`)
    expect(await source.text(`ls /root/mine 2>/dev/null; ${ASK('who')}`)).toBe('-')
    await source.text(`echo source > /root/mine; ${ASK('who source')}`)
    expect(await copy?.text(`cat /root/mine; ${ASK('who')}`)).toBe('copy\ncopy')
  })

  it('may be many at once, each with its own identity, name and random bytes', async () => {
    const request = { count: 5, name: 'try', labels: { kind: 'copy' }, envs: { SEED: '7' }, timeout_sec: 3600 }
    const { copies: made } = await source.fork(request)
    copies.push(...made)
    expect(made.map(({ made: { name, labels, timeout_sec } }) => [name, labels, timeout_sec])).toEqual(
      [1, 2, 3, 4, 5].map((index) => [`try-${index}`, { kind: 'copy' }, 3600]),
    )
    expect(new Set(made.map(({ id }) => id)).size).toBe(5)
    const all = [source, ...made]
    const identities = await Promise.all(all.map((capsule) => capsule.text(IDENTITY.join('; '))))
    const columns = IDENTITY.map((_, column) => identities.map((text) => text.split('\n')[column]))
    for (const column of columns) expect(new Set(column).size).toBe(all.length)
    expect(columns[0]).toEqual(all.map(({ id }) => id))
    expect(await Promise.all(made.map((copy) => copy.text('echo $SEED $COLOUR')))).toEqual(Array(5).fill('7 green'))
    for (const copy of made) {
      const before = Date.now()
      const guest = Number(await copy.text('date +%s%3N'))
      expect(guest).toBeGreaterThanOrEqual(before - 1000)
      expect(guest).toBeLessThanOrEqual(Date.now() + 1000)
    }
  })

  it('may be made of a paused capsule, which stays paused', async () => {
    await source.pause()
    const { copies: made } = await source.fork({ name: 'awake' })
    copies.push(...made)
    expect(made[0]?.made).toMatchObject({ state: 'running', name: 'awake', parent_id: source.id })
    expect(await made[0]?.text(ASK('who'))).toBe('source')
    expect(await source.get()).toMatchObject({ state: 'paused', pause_reason: 'request' })
    await source.resume()
    expect(await source.text(ASK('who'))).toBe('source')
  })

  it('outlives its source', async () => {
    const [first, ...others] = copies
    await Promise.all(others.map((copy) => copy.destroy()))
    copies = first === undefined ? [] : [first]
    await source.destroy()
    expect(await first?.text(ASK('who'))).toBe('copy')
    await first?.pause()
    await first?.resume()
    expect(await first?.text('cat /root/mine')).toBe('copy')
  })

  it('is not made of what is not there or too much', async () => {
    const refusal = (json: object) => api.refusal('POST', `${source.path}/fork`, { json })
    expect(await refusal({ count: 0 })).toMatchObject({ status: 400, code: 'invalid_request' })
    expect(await refusal({ count: 101 })).toMatchObject({ status: 400, code: 'invalid_request' })
    expect(await refusal({})).toMatchObject({ status: 409, code: 'invalid_state' })
  })
})
