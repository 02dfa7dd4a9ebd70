import { mkdtemp, rm } from 'node:fs/promises'
import { silentLogger } from '@wrenn/base'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { run, runForResult } from '../src/host/exec.js'
import { createNetwork, type EgressPolicy, type Network, type Slot } from '../src/host/network/index.js'
import { ask, Background, neighbours, PORT, plugGuest, plugNeighbour, removeScratch, serve } from './namespaces.js'

const PREFIX = 'wnet'
const TALK_PORT = 7778
const DRIP_PORT = 7779
const CHANGES = 40
const open: EgressPolicy = { internet: true, allow: [], deny: [] }
const closed: EgressPolicy = { internet: false, allow: [], deny: [] }
const { inet, lan } = neighbours

describe.skipIf(process.getuid?.() !== 0)('a change of what a guest may reach (needs root)', () => {
  let platform = ''
  let network: Network
  let slot: Slot
  let guest = ''
  const running: Background[] = []

  const make = (): Network =>
    createNetwork({
      config: { prefix: PREFIX, cidr: '10.211.0.0/20', uidBase: 64_100, poolSize: 0, platform },
      logger: silentLogger,
    })
  const apply = (policy: EgressPolicy): Promise<void> => network.applyPolicy(slot.index, policy)
  const connect = (address: string): Promise<unknown> => ask(guest, 'connect', address, String(PORT))
  const session = async (address: string, port = PORT): Promise<Background> => {
    const opened = new Background(guest, 'session', address, String(port))
    if (port === PORT) expect(await opened.line()).toMatch(/^\d/)
    return opened
  }
  const inSlot = (...command: readonly string[]): Promise<string> =>
    run('nsenter', [`--net=/run/netns/${slot.namespace}`, ...command])

  beforeAll(async () => {
    platform = await mkdtemp('/tmp/wrenn-egress-')
    await removeScratch()
    await make().removeAll()
    await plugNeighbour(inet)
    await plugNeighbour(lan)
    network = make()
    await network.start({ inUse: new Map() })
    slot = await network.acquire('cl-one')
    guest = await plugGuest(slot)
    for (const { namespace } of [inet, lan]) running.push(await serve(namespace))
  })
  afterAll(async () => {
    for (const server of running) await server[Symbol.asyncDispose]()
    await network.removeAll()
    await removeScratch()
    await rm(platform, { recursive: true })
  })
  beforeEach(() => apply(open))

  it.each([
    ['the internet', inet],
    ['a private network', lan],
  ])(
    'resets whoever speaks next on a connection to %s that became forbidden: the guest, or its peer',
    async (_where, to) => {
      await apply({ ...open, allow: [lan.address] })
      await using peer = new Background(to.namespace, 'talk', String(TALK_PORT))
      await peer.ready()
      await using speaker = await session(to.address)
      await using listener = await session(to.address, TALK_PORT)
      expect(await peer.line()).toBe('connected')
      await apply({ ...open, deny: ['198.51.100.0/24'] })
      speaker.say('anybody?')
      peer.say('anybody?')
      expect([await speaker.line(), await peer.line()]).toEqual(['ECONNRESET', 'ECONNRESET'])
      // The peer's reset is all that goes out: the guest hears of it when it speaks.
      listener.say('anybody?')
      expect(await listener.line()).toBe('ECONNRESET')
    },
  )

  it('stops what comes in on a flow that became forbidden', async () => {
    await using source = new Background(inet.namespace, 'drip', String(DRIP_PORT))
    await source.ready()
    await using sink = new Background(guest, 'catch', inet.address, String(DRIP_PORT))
    let caught = 0
    void (async () => {
      for (let line = await sink.line(); typeof line === 'number'; line = await sink.line()) caught = line
    })()
    const sent = async (count: number): Promise<void> => {
      for (let line = await source.line(); Number(line) < count; line = await source.line());
    }
    await sent(20)
    await expect.poll(() => caught).toBeGreaterThan(10)
    await apply(closed)
    const after = Number(await source.line())
    await sent(after + 20)
    const last = caught
    await sent(after + 60)
    expect(caught).toBe(last)
  })

  it('drops the tracked connections that became forbidden, and no other', async ({ skip }) => {
    if ((await runForResult('sh', ['-c', 'command -v conntrack'])).exitCode !== 0) return skip('conntrack is missing')
    await apply({ ...open, allow: [lan.address] })
    await using kept = await session(lan.address)
    await using _dropped = await session(inet.address)
    const tracked = async () => {
      const list = await inSlot('conntrack', '-L', '-p', 'tcp', '--state', 'ESTABLISHED')
      return [inet, lan].filter(({ address }) => list.includes(`dst=${address} `))
    }
    /** How many seconds the host still knows the connection. */
    const remembered = async (address: string): Promise<number> => {
      const of = ['--orig-src', slot.guestAddress, '--orig-dst', address, '--orig-port-dst', String(PORT)]
      const list = await run('conntrack', ['-L', '-p', 'tcp', '--state', 'ESTABLISHED', ...of])
      return Math.max(0, ...[...list.matchAll(/^tcp +6 (\d+) /gm)].map(([, seconds]) => Number(seconds)))
    }
    expect(await remembered(inet.address)).toBeGreaterThan(60)
    expect(await tracked()).toEqual([inet, lan])
    await apply({ ...closed, allow: [lan.address] })
    expect(await tracked()).toEqual([lan])
    expect(await remembered(lan.address)).toBeGreaterThan(60)
    expect(await remembered(inet.address)).toBeLessThanOrEqual(10)
    kept.say('still there?')
    expect(await kept.line()).toBe('still there?')
  })

  it('never cuts what stays allowed, and never opens what stays forbidden', async () => {
    const policies: readonly EgressPolicy[] = [
      { internet: false, allow: [inet.address, lan.address], deny: [] },
      { internet: true, allow: ['198.51.100.0/24', lan.address, '10.9.0.0/16'], deny: ['198.51.100.0/24'] },
    ]
    await apply(policies[0] ?? closed)
    await using talk = await session(inet.address)
    await using talkLan = await session(lan.address)
    await using knocks = new Background(guest, 'knock', inet.address, String(PORT))
    await using knocksLan = new Background(guest, 'knock', lan.address, String(PORT))
    await using forbidden = new Background(guest, 'knock', lan.host, String(PORT))
    await using server = await serve(undefined)
    const knocking = [knocks, knocksLan, forbidden]
    for (const each of knocking) await each.ready()
    for (let change = 1; change <= CHANGES; change += 1) {
      await apply(policies[change % 2] ?? closed)
      for (const each of [talk, talkLan]) {
        each.say(`change ${change}`)
        expect(await each.line()).toBe(`change ${change}`)
      }
    }
    for (const each of knocking) each.say('stop')
    expect(await knocks.line()).toEqual({ open: expect.any(Number), refused: 0 })
    expect(await knocksLan.line()).toEqual({ open: expect.any(Number), refused: 0 })
    expect(await forbidden.line()).toEqual({ open: 0, refused: expect.any(Number) })
    expect(server.child.exitCode).toBeNull()
  })

  it('is the same when it is made twice, and takes five hundred entries', async () => {
    const many = Array.from({ length: 498 }, (_, n) => `203.${n >> 8}.${n & 255}.0/24`)
    const policy = { internet: false, allow: [...many.slice(0, 249), inet.address], deny: many.slice(249) }
    await apply(policy)
    const rules = await inSlot('nft', '--stateless', 'list', 'table', 'inet', 'wrenn')
    await apply(policy)
    expect(await inSlot('nft', '--stateless', 'list', 'table', 'inet', 'wrenn')).toBe(rules)
    expect(await connect(inet.address)).toMatch(/^from/)
  })

  describe('over a restart of the host agent', () => {
    const restart = async (): Promise<void> => {
      await network.stop()
      network = make()
      const { adopted } = await network.start({ inUse: new Map([[slot.index, { vmId: 'cl-one', owner: 'cl-one' }]]) })
      expect(adopted).toEqual([slot])
    }

    it('connections go on, to private networks too, before and after the policy is loaded again', async () => {
      const policy = { ...closed, allow: [lan.address, inet.address] }
      await apply(policy)
      await using far = await session(inet.address)
      await using near = await session(lan.address)
      await restart()
      for (const text of ['before', 'after', 'later']) {
        for (const each of [far, near]) {
          each.say(text)
          expect(await each.line()).toBe(text)
        }
        await apply(policy)
      }
      await apply({ ...closed, allow: [inet.address] })
      expect(await connect(lan.address)).toBe('ECONNREFUSED')
    })

    it('a slot with the rules of another version takes a policy all the same', async () => {
      await apply(open)
      const older = 'table inet wrenn\ndelete table inet wrenn\ntable inet wrenn {\n  chain internet {\n  }\n}\n'
      await run('nsenter', [`--net=/run/netns/${slot.namespace}`, 'nft', '-f', '-'], { input: older })
      await restart()
      await apply(open)
      expect(await connect(inet.address)).toMatch(/^from/)
      await apply(closed)
      expect(await connect(inet.address)).toBe('ECONNREFUSED')
    })
  })
})
