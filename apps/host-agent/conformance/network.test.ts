import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { chmod, copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { AppError, silentLogger, waitFor } from '@wrenn/base'
import { GUEST_AGENT_PORT } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run, runForResult } from '../src/host/exec.js'
import { listHostResources } from '../src/host/inventory.js'
import { createNetwork, type Network, type Slot } from '../src/host/network/index.js'
import { listNamespaces } from '../src/host/network/slot.js'
import {
  ask,
  Background,
  neighbours,
  PORT,
  plugGuest,
  plugNeighbour,
  probe,
  removeScratch,
  serve,
  wireGuest,
} from './namespaces.js'

const PREFIX = 'wnet'
const CIDR = '10.211.0.0/20'
/** Of the control plane. */
const CALLER_UID = 64_099
const open = { internet: true, allow: [], deny: [] }
const closed = { internet: false, allow: [], deny: [] }

/** Resolvers wait 5 s, however slow their machine is. */
const tooSlow =
  process.env.WRENN_TEST_SLOW === undefined ? '' : 'WRENN_TEST_SLOW: an emulated CPU answers no burst in 5 s'

const leftovers = () => listHostResources({ prefix: PREFIX, dir: '/tmp/wrenn-network' })

describe.skipIf(process.getuid?.() !== 0)('network slots (needs root)', () => {
  let platform = ''
  let network: Network
  let one: Slot
  let two: Slot
  let guest = ''
  const running: Background[] = []

  const make = (over: { cidr?: string; platform?: string; poolSize?: number } = {}): Network =>
    createNetwork({
      config: {
        ...{ prefix: PREFIX, cidr: CIDR, uidBase: 64_100, callerUid: CALLER_UID, poolSize: 0, platform, ...over },
        resolvConfPath: join(platform, 'resolv.conf'),
      },
      logger: silentLogger,
    })
  const connect = (address: string): Promise<unknown> => ask(guest, 'connect', address, String(PORT))

  beforeAll(async () => {
    platform = await mkdtemp('/tmp/wrenn-network-')
    await copyFile('/etc/resolv.conf', join(platform, 'resolv.conf'))
    // What a killed run left behind.
    await removeScratch()
    await make().removeAll()
    await plugNeighbour(neighbours.inet)
    await plugNeighbour(neighbours.lan)
    network = make()
    await network.start({ inUse: new Map() })
    one = await network.acquire('cl-one')
    two = await network.acquire('cl-two')
    guest = await plugGuest(one)
    const second = await plugGuest(two)
    for (const namespace of [guest, second, undefined, neighbours.inet.namespace, neighbours.lan.namespace]) {
      running.push(await serve(namespace))
    }
  })

  afterAll(async () => {
    for (const server of running) await server[Symbol.asyncDispose]()
    await network.removeAll()
    await removeScratch()
    await rm(platform, { recursive: true })
  })

  it('lets the host’s root reach the guest, who sees its gateway as the source', async () => {
    expect(await ask(undefined, 'connect', one.guestAddress, String(PORT))).toBe('from 169.254.0.22')
  })

  it('refuses machines beside it and other users of the host, but not the control plane, which reaches no guest agent', async () => {
    // The checkout may lie where nobody else may look, such as in /root.
    const theirs = join(platform, 'probe.mjs')
    await copyFile(probe, theirs)
    await chmod(platform, 0o755)
    const connectAs = async (uid: number, port: number): Promise<unknown> => {
      const user = [`--reuid=${uid}`, '--regid=65534', '--clear-groups', process.execPath, theirs, 'connect']
      return JSON.parse(await run('setpriv', [...user, one.guestAddress, String(port)]))
    }
    await using _agent = await serve(guest, GUEST_AGENT_PORT)
    expect(await ask(undefined, 'connect', one.guestAddress, String(GUEST_AGENT_PORT))).toBe('from 169.254.0.22')
    expect(await connectAs(CALLER_UID, PORT)).toBe('from 169.254.0.22')
    expect(await connectAs(CALLER_UID, GUEST_AGENT_PORT)).toBe('ECONNREFUSED')
    const [user, outside, resolver] = await Promise.all([
      connectAs(65_534, PORT),
      ask(neighbours.inet.namespace, 'connect', one.guestAddress, String(PORT)),
      ask(neighbours.lan.namespace, 'resolve', network.dnsAddress, 'wrenn.example'),
    ])
    expect([user, outside, resolver]).toEqual(['ECONNREFUSED', 'ETIMEDOUT', 'ETIMEOUT'])
  })

  it('keeps a fresh slot closed: no internet, no names', async () => {
    expect(await connect(neighbours.inet.address)).toBe('ECONNREFUSED')
    expect(await ask(guest, 'resolve', '169.254.0.22', 'wrenn.example')).toBe('ECONNREFUSED')
  })

  it('opens the internet by policy and hides the guest behind the host’s address', async () => {
    await network.applyPolicy(one.index, open)
    expect(await connect(neighbours.inet.address)).toBe(`from ${neighbours.inet.host}`)
  })

  it('never reaches the host, other capsules, metadata or private networks', async () => {
    await network.applyPolicy(one.index, { internet: true, allow: ['0.0.0.0/0'], deny: [] })
    const { host, guest: own } = {
      host: one.guestAddress.replace(/\d+$/, (last) => String(Number(last) - 1)),
      guest: one.guestAddress,
    }
    const addresses = Object.values(networkInterfaces())
      .flat()
      .filter((entry) => entry?.family === 'IPv4')
    const targets = [host, own, two.guestAddress, network.dnsAddress, neighbours.lan.address, neighbours.inet.host]
    const anywhere = [
      '169.254.169.254',
      '10.0.0.1',
      '172.16.0.1',
      '192.168.0.1',
      '100.64.0.1',
      '255.255.255.255',
      '224.0.0.1',
    ]
    const reached: string[] = []
    for (const target of new Set([...targets, ...anywhere, ...addresses.map((entry) => entry?.address ?? '')])) {
      if (target.startsWith('127.')) continue // the guest's own loopback
      const answer = await connect(target)
      if (String(answer).startsWith('from')) reached.push(target)
      else
        expect([target, answer]).toEqual([
          target,
          expect.stringMatching(/^E(CONNREFUSED|ACCES|NETUNREACH|HOSTUNREACH|INVAL|ADDRNOTAVAIL|TIMEDOUT)$/),
        ])
    }
    expect(reached).toEqual([])
  })

  it('lets allow beat deny, and opens private addresses only when they are named', async () => {
    const { inet, lan } = neighbours
    await network.applyPolicy(one.index, { internet: true, allow: [], deny: ['198.51.100.0/24'] })
    expect(await connect(inet.address)).toBe('ECONNREFUSED')
    await network.applyPolicy(one.index, { internet: true, allow: [inet.address], deny: ['198.51.100.0/24'] })
    expect(await connect(inet.address)).toMatch(/^from/)
    await network.applyPolicy(one.index, { internet: false, allow: [lan.address], deny: [] })
    expect([await connect(lan.address), await connect(inet.address)]).toEqual([`from ${lan.host}`, 'ECONNREFUSED'])
    await network.applyPolicy(one.index, { internet: true, allow: [lan.host], deny: [] })
    expect([await connect(lan.host), await connect(lan.address)]).toEqual(['ECONNREFUSED', 'ECONNREFUSED'])
    await network.applyPolicy(one.index, open)
    expect([await connect(lan.address), await connect(inet.address)]).toEqual([
      'ECONNREFUSED',
      expect.stringMatching(/^from/),
    ])
  })

  it('ends open connections when the policy becomes stricter', async () => {
    await network.applyPolicy(one.index, open)
    await using session = new Background(guest, 'session', neighbours.inet.address, String(PORT))
    expect(await session.line()).toContain(neighbours.inet.host)
    session.child.stdin.write('still there?\n')
    expect(await session.line()).toBe('still there?')
    await network.applyPolicy(one.index, closed)
    session.child.stdin.write('and now?\n')
    expect(await session.line()).toBe('ECONNRESET')
  })

  it('resets what a guest had open when it comes back in another slot, and keeps its services reachable', async () => {
    const [before, after] = [await network.acquire('cl-before'), await network.acquire('cl-after')]
    const moved = await plugGuest(before)
    for (const { index } of [before, after]) await network.applyPolicy(index, open)
    await using _server = await serve(moved)
    await using session = new Background(moved, 'session', neighbours.inet.address, String(PORT))
    await session.line()
    session.child.stdin.write('before\n')
    expect(await session.line()).toBe('before')

    await run('ip', ['-n', before.namespace, 'link', 'del', 'tap0'])
    await wireGuest(after, moved)
    // A server that is silent, so that it can only be the slot that answers.
    await run('ip', ['link', 'set', neighbours.inet.namespace, 'down'])
    try {
      session.child.stdin.write('after\n')
      expect(await session.line()).toBe('ECONNRESET')
    } finally {
      await run('ip', ['link', 'set', neighbours.inet.namespace, 'up'])
    }
    expect(await ask(undefined, 'connect', after.guestAddress, String(PORT))).toBe('from 169.254.0.22')
    expect(await ask(moved, 'connect', neighbours.inet.address, String(PORT))).toMatch(/^from/)
    await run('ip', ['netns', 'del', moved])
    await network.release(before.index, 'cl-before')
    await network.release(after.index, 'cl-after')
  })

  it('drops packets with a source that is not the guest’s', async () => {
    await network.applyPolicy(one.index, open)
    const { inet } = neighbours
    const server = running[3]
    await run('ip', ['-n', guest, 'addr', 'add', '198.51.100.99/32', 'dev', 'eth0'])
    await run('ip', ['-n', guest, 'addr', 'add', two.guestAddress, 'dev', 'eth0'])
    for (const source of ['198.51.100.99', two.guestAddress, '169.254.0.21']) {
      expect(await ask(guest, 'send', source, inet.address, String(PORT), source)).toBe('sent')
    }
    // In order on one path: had a spoofed one passed, it would come first.
    expect(await server?.line()).toEqual({ udp: '169.254.0.21', from: inet.host })
  })

  it('names the entry of a policy that it cannot keep', async () => {
    for (const entry of ['com', '::1', '10.0.0.0/33', '169.254.169.254']) {
      const refused = network.applyPolicy(one.index, { ...closed, allow: [entry] })
      await expect(refused).rejects.toMatchObject({ code: 'invalid_request', message: expect.stringContaining(entry) })
    }
  })

  it('resolves names and reaches the Debian archive through the forwarder and NAT', async ({ skip }) => {
    const known = await lookup('deb.debian.org', { family: 4 }).catch(() => undefined)
    if (!known) return skip('this machine does not resolve deb.debian.org')
    await network.applyPolicy(one.index, open)
    const addresses = await ask(guest, 'resolve', '169.254.0.22', 'deb.debian.org')
    expect(addresses).toContain(known.address)
    expect(await ask(guest, 'head', known.address, 'deb.debian.org')).toBe(200)
  })

  describe('with a name server of its own', () => {
    let server: Background

    beforeAll(async () => {
      server = new Background(neighbours.inet.namespace, 'answer', '50')
      expect(await server.line()).toBe('ready')
      await writeFile(join(platform, 'resolv.conf'), `nameserver ${neighbours.inet.address}\n`)
      for (const { index } of [one, two]) await network.applyPolicy(index, open)
    })
    afterAll(async () => {
      await server[Symbol.asyncDispose]()
      await copyFile('/etc/resolv.conf', join(platform, 'resolv.conf'))
    })

    it('answers 1,000 look-ups at once from one guest', async ({ skip }) => {
      if (tooSlow !== '') return skip(tooSlow)
      expect(await ask(guest, 'lookups', '169.254.0.22', '1000')).toBe(1000)
    })

    it('answers one guest while another asks as fast as it can', async ({ skip }) => {
      if (tooSlow !== '') return skip(tooSlow)
      await using flood = new Background(`wnetx-g${two.index}`, 'flood', '169.254.0.22')
      expect(await flood.line()).toBe('flooding')
      expect(await ask(guest, 'lookups', '169.254.0.22', '150')).toBe(150)
    })

    it('remembers questions no longer than their resolver waits, and none in the host’s own table', async ({
      skip,
    }) => {
      const tool = await runForResult('sh', ['-c', 'command -v conntrack'])
      if (tool.exitCode !== 0) return skip('conntrack is not installed')
      expect(await ask(guest, 'lookups', '169.254.0.22', '1')).toBe(1)
      const dump = ['conntrack', '--dump', '--proto', 'udp', '--orig-port-dst', '53']
      const inSlot = await run('nsenter', [`--net=/run/netns/${one.namespace}`, ...dump])
      const lifetimes = [...inSlot.matchAll(/^udp +17 (\d+)/gm)].map(([, seconds]) => Number(seconds))
      expect(lifetimes.length).toBeGreaterThan(0)
      expect(Math.max(...lifetimes)).toBeLessThanOrEqual(10)
      const [, ...inRoot] = dump
      expect(await run('conntrack', [...inRoot, '--src', one.guestAddress])).toBe('')
    })
  })

  it('gives the tap to the slot’s uid only', async ({ skip }) => {
    const socat = await runForResult('sh', ['-c', 'command -v socat'])
    if (socat.exitCode !== 0) return skip('socat is not installed')
    const slot = await network.acquire('cl-tap')
    const attach = async (uid: number): Promise<string> => {
      const command = [
        'setpriv',
        `--reuid=${uid}`,
        `--regid=${uid}`,
        '--clear-groups',
        'socat',
        '-u',
        'OPEN:/dev/null',
        'TUN,tun-name=tap0,tun-type=tap',
      ]
      return (await runForResult('nsenter', [`--net=/run/netns/${slot.namespace}`, ...command])).stderr
    }
    // Once attached, socat also wants to raise the link, which only root may.
    expect([await attach(slot.uid), await attach(slot.uid + 1)]).toEqual([
      expect.stringContaining('SIOCSIFFLAGS'),
      expect.stringContaining('TUNSETIFF'),
    ])
    await network.release(slot.index, 'cl-tap')
  })

  it('keeps what a guest received and sent when its slot is released, until it was noted', async () => {
    const counting = await network.acquire('hot-counting')
    await network.rename(counting.index, 'cl-counting')
    const inside = await plugGuest(counting)
    await network.applyPolicy(counting.index, open)
    const guestId = network.guestId(counting.index)
    const ended = () => network.ended().filter((each) => each.guestId === guestId)
    expect(await ask(inside, 'connect', neighbours.inet.address, String(PORT))).toBe('from 198.51.100.1')
    expect(ended()).toEqual([])
    await network.release(counting.index, 'hot-counting')
    await run('ip', ['netns', 'del', inside])
    const [kept, ...others] = ended()
    expect(others).toEqual([])
    expect(kept).toEqual({
      owner: 'cl-counting',
      guestId,
      rxBytes: expect.any(Number),
      txBytes: expect.any(Number),
    })
    expect(Math.min(kept?.rxBytes ?? 0, kept?.txBytes ?? 0)).toBeGreaterThan(100)
    expect(network.guestId(counting.index)).toBeUndefined()
    // The same number, another guest.
    const next = await network.acquire('cl-next')
    expect(next.index).toBe(counting.index)
    expect(network.guestId(next.index)).not.toBe(guestId)
    await network.noted([guestId ?? ''])
    expect(ended()).toEqual([])
    await network.release(next.index, 'cl-next')
  })

  it('forgets the connections of a released slot, and those left idle after two hours', async ({ skip }) => {
    const tool = await runForResult('sh', ['-c', 'command -v conntrack'])
    if (tool.exitCode !== 0) return skip('conntrack is not installed')
    const slot = await network.acquire('cl-short')
    const short = await plugGuest(slot)
    await network.applyPolicy(slot.index, open)
    await using session = new Background(short, 'session', neighbours.inet.address, String(PORT))
    await session.line()
    session.child.stdin.write('established\n')
    expect(await session.line()).toBe('established')
    const tracked = () => run('conntrack', ['--dump', '--src', slot.guestAddress])
    // Data still on its way has a shorter time.
    const acknowledged = async (): Promise<number | undefined> => {
      const left = Number(/ (\d+) ESTABLISHED/.exec(await tracked())?.[1])
      return left > 300 ? left : undefined
    }
    const seconds = await waitFor(acknowledged, { timeoutMs: 5000, what: 'the echo to be acknowledged' })
    expect(seconds).toBeLessThanOrEqual(7200)
    await network.release(slot.index, 'cl-short')
    expect(await tracked()).toBe('')
  })

  it('refuses a range or prefix that is taken, naming the option to change', async () => {
    const lan = make({ cidr: '10.254.0.0/16' }).start({ inUse: new Map() })
    await expect(lan).rejects.toThrow(/WRENN_NETWORK_CIDR .* overlaps 10\.254\.77/)
    const other = make({ platform: '/tmp' }).start({ inUse: new Map() })
    await expect(other).rejects.toThrow(/WRENN_INSTANCE/)
    expect(() => make({ cidr: '10.0.0.0/30' })).toThrow(AppError)
  })
})

describe.skipIf(process.getuid?.() !== 0)('the pool of slots (needs root)', () => {
  const make = (poolSize: number): Network =>
    createNetwork({
      config: { prefix: PREFIX, cidr: CIDR, uidBase: 64_100, poolSize, platform: '/tmp/wrenn-network' },
      logger: silentLogger,
    })

  it('sweeps what nobody owns, keeps what is owned, and reports what is lost', async () => {
    const before = make(2)
    await before.start({ inUse: new Map() })
    const kept = await before.acquire('hot-kept')
    const orphan = await before.acquire('cl-orphan')
    const orphanGuest = before.guestId(orphan.index)
    await run('ip', ['netns', 'add', 'wnetx-foreign'])
    await before.stop()
    const after = make(0)
    const { adopted, lost } = await after.start({
      inUse: new Map([
        [kept.index, { vmId: 'hot-kept', owner: 'cl-kept' }],
        [900, { vmId: 'hot-lost', owner: 'cl-lost' }],
      ]),
    })
    expect({ adopted, lost }).toEqual({ adopted: [kept], lost: [900] })
    // Of whoever ended while nobody looked; of those that waited for a guest there is nothing.
    expect(after.ended()).toMatchObject([{ owner: 'cl-orphan', guestId: orphanGuest }])
    const namespaces = await listNamespaces()
    expect(namespaces.filter((name) => name.startsWith('wnet')).sort()).toEqual([kept.namespace, 'wnetx-foreign'])
    const owned = (await leftovers()).filter(({ owner }) => owner === 'cl-kept')
    expect(owned.map(({ kind }) => kind).sort()).toEqual(['link', 'namespace', 'tap'])
    expect(orphan.namespace).not.toBe(kept.namespace)
    await after.applyPolicy(kept.index, { internet: true, allow: ['10.1.0.0/16'], deny: [] })
    await after.release(kept.index, 'cl-kept')
    expect(after.counts().owned).toBe(1)
    await after.release(kept.index, 'hot-kept')
    expect(after.counts().owned).toBe(0)
    await after.removeAll()
    await run('ip', ['netns', 'del', 'wnetx-foreign'])
    expect(await leftovers()).toEqual([])
  })

  it('makes twenty slots at once and removes them without a trace', async () => {
    const network = make(2)
    await network.start({ inUse: new Map() })
    const slots = await Promise.all(Array.from({ length: 20 }, (_, n) => network.acquire(`cl-${n}`)))
    expect(new Set(slots.map(({ uid }) => uid)).size).toBe(20)
    for (const { index } of slots)
      await network.applyPolicy(index, { internet: false, allow: ['10.2.0.0/16'], deny: [] })
    const release = () => Promise.all(slots.map(({ index }, n) => network.release(index, `cl-${n}`)))
    await release()
    await release()
    expect(network.counts().owned).toBe(0)
    const next = await network.acquire('cl-next')
    await network.release(next.index, 'cl-0')
    expect(network.counts().owned).toBe(1)
    await network.removeAll()
    expect(await leftovers()).toEqual([])
  })

  it('runs out of slots with a clear error', async () => {
    const network = createNetwork({
      config: { prefix: PREFIX, cidr: '10.212.0.0/26', uidBase: 65_525, poolSize: 0, platform: '/tmp/wrenn-network' },
      logger: silentLogger,
    })
    await network.start({ inUse: new Map() })
    const slots = await Promise.all(Array.from({ length: 13 }, (_, n) => network.acquire(`cl-${n}`)))
    // 15 blocks less the two whose uid means "nobody".
    expect(slots.map(({ uid }) => uid)).not.toContain(65_534)
    await expect(network.acquire('cl-more')).rejects.toMatchObject({ code: 'pool_exhausted' })
    await network.removeAll()
    expect(await leftovers()).toEqual([])
  })

  it('leaves the ports of the host alone', async () => {
    const network = make(0)
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    await network.start({ inUse: new Map() })
    const address = server.address()
    const port = typeof address === 'object' && address ? String(address.port) : ''
    server.on('connection', (socket) => socket.end('hello'))
    expect(await ask(undefined, 'connect', '127.0.0.1', port)).toBe('from hello')
    await network.removeAll()
    server.close()
  })
})
