import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { type Credentials, createAuthority, issueHostCertificate } from '@wrenn/certificates'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../src/host/exec.js'
import { createNetwork, type EgressPolicy, type Network, type Slot } from '../src/host/network/index.js'
import { ask, Background, neighbours, PORT, plugGuest, plugNeighbour, removeScratch } from './namespaces.js'

const PREFIX = 'wnef'
const UID = 64_090
const { inet, other, lan } = neighbours
const GATEWAY = '169.254.0.22'

/** `good.example` is at one place, `bad.example` at another; `shared.example` is where `good.example` is. */
const NAMES = {
  'good.example': [inet.address],
  'a.wide.example': [inet.address],
  'shared.example': [inet.address],
  'bad.example': [other.address],
  'private.example': [lan.address],
  'loop.example': ['127.0.0.1'],
  'api.example': [inet.address],
  'platform.example': ['10.212.0.1'],
  'mixed.example': [lan.address, inet.address],
}
const only: EgressPolicy = {
  internet: false,
  allow: [
    'good.example',
    '*.wide.example',
    'private.example',
    'loop.example',
    'platform.example',
    'mixed.example',
    'gone.example',
  ],
  deny: [],
}
const without: EgressPolicy = { internet: true, allow: [], deny: ['bad.example', '*.bad.example'] }
const open: EgressPolicy = { internet: true, allow: [], deny: [] }

const request = (host: string, more = '', path = '/'): string => `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`
const lastRequest = (host: string): string => request(host, 'Connection: close\r\n')
/** A reset that comes together with data is an end to Node.js. */
const over = expect.stringMatching(/^(ECONNRESET|end)$/)
const cut = expect.stringMatching(/^(ECONNRESET|EPIPE)$/)

describe.skipIf(process.getuid?.() !== 0)('what a guest may reach by name (needs root)', () => {
  let platform = ''
  let network: Network
  let slot: Slot
  let guest = ''
  let dns: Background
  let world: Credentials
  const running: Background[] = []

  const make = (): Network =>
    createNetwork({
      config: {
        ...{ prefix: PREFIX, cidr: '10.212.0.0/20', uidBase: 64_100, poolSize: 0, platform },
        resolvConfPath: join(platform, 'resolv.conf'),
        filter: {
          command: [
            ...['--conditions=wrenn-source', '--import', createRequire(import.meta.url).resolve('tsx')],
            new URL('../src/filter/main.ts', import.meta.url).pathname,
          ],
          uid: UID,
          caPath: join(platform, 'world.pem'),
          runDir: join(platform, 'filter'),
        },
      },
      logger: silentLogger,
    })
  const apply = (policy: EgressPolicy): Promise<void> => network.applyPolicy(slot.index, policy)
  const tls = (address: string, name = '', port = 443) => ask(guest, 'tls', address, String(port), name)
  const say = (text: string, { address = inet.address, port = 80, pace = 'whole' } = {}) =>
    ask(guest, 'say', address, String(port), JSON.stringify(text), pace)
  const lookUp = (name: string, server = GATEWAY) => ask(guest, 'resolve', server, name)

  beforeAll(async () => {
    platform = await mkdtemp('/tmp/wrenn-egress-names-')
    await writeFile(join(platform, 'resolv.conf'), `nameserver ${inet.address}\n`)
    world = await createAuthority('the world', undefined)
    await writeFile(join(platform, 'world.pem'), world.cert)
    await removeScratch()
    await make().removeAll()
    for (const neighbour of [inet, other, lan]) await plugNeighbour(neighbour)
    network = make()
    await network.start({ inUse: new Map() })
    slot = await network.acquire('cl-one')
    guest = await plugGuest(slot)
    dns = new Background(inet.namespace, 'names', JSON.stringify(NAMES))
    running.push(dns)
    for (const [label, { namespace }] of [
      ['good', inet],
      ['bad', other],
      ['lan', lan],
    ] as const) {
      running.push(new Background(namespace, 'site', label))
    }
    for (const each of running) await each.ready()
  })
  afterAll(async () => {
    for (const server of running) await server[Symbol.asyncDispose]()
    await network?.removeAll()
    await removeScratch()
    await rm(platform, { recursive: true })
  })

  describe('with internet off and names allowed', () => {
    beforeAll(() => apply(only))

    it.each([
      ['TLS by SNI', () => tls(inet.address, 'good.example'), 'good good.example'],
      ['TLS by SNI on another port', () => tls(inet.address, 'good.example', 853), 'good good.example'],
      ['a name below a wildcard', () => tls(inet.address, 'a.wide.example'), 'good a.wide.example'],
      ['a name in capitals', () => tls(inet.address, 'GOOD.example'), expect.stringMatching(/^good good.example$/i)],
      ['HTTP by Host', () => say(lastRequest('good.example')), [expect.stringContaining('good good.example /'), 'end']],
      [
        'HTTP on another port',
        () => say(lastRequest('good.example:8080'), { port: 8080 }),
        [expect.stringContaining('good good.example:8080'), 'end'],
      ],
      [
        'HTTP a byte at a time',
        () => say(lastRequest('good.example'), { pace: 'slow' }),
        [expect.stringContaining('good good.example /'), 'end'],
      ],
      [
        'two requests on one connection',
        () => say(request('good.example') + lastRequest('a.wide.example')),
        [expect.stringMatching(/good good\.example .*good a\.wide\.example /s), 'end'],
      ],
      [
        'a WebSocket',
        async () =>
          String(
            await say(`${request('good.example', 'Upgrade: websocket\r\nConnection: Upgrade\r\n')}${'x'.repeat(5000)}`),
          ),
        expect.stringMatching(/101 Switching.*xxxxx/s),
      ],
      ['a name of which only a public address counts', () => tls(inet.address, 'mixed.example'), 'good mixed.example'],
      ['the name’s address by DNS', () => lookUp('good.example'), [inet.address]],
      ['the address of a name below a wildcard', () => lookUp('a.wide.example'), [inet.address]],
    ])('lets through %s', async (_what, attempt, result) => {
      expect(await attempt()).toEqual(result)
    })

    it('goes to where the name is, whatever address the guest was told', async () => {
      expect(await tls(other.address, 'good.example')).toBe('good good.example')
    })

    it.each([
      ['an IP literal', () => say(lastRequest(inet.address)), ['', 'ECONNRESET']],
      ['a protocol without names', () => say('hello, who is there?\r\n', { port: 7777 }), ['', 'ECONNRESET']],
      ['TLS without SNI', () => tls(inet.address), 'ECONNRESET'],
      ['TLS for another name at the same address', () => tls(inet.address, 'shared.example'), 'ECONNRESET'],
      ['the apex of a wildcard', () => tls(inet.address, 'wide.example'), 'ECONNRESET'],
      ['a name that ends alike', () => tls(inet.address, 'notgood.example'), 'ECONNRESET'],
      ['HTTP for another name at the same address', () => say(lastRequest('shared.example')), ['', 'ECONNRESET']],
      [
        'a second request for another name',
        () => say(request('good.example') + lastRequest('shared.example')),
        [expect.not.stringContaining('shared'), over],
      ],
      ['two Hosts', () => say(request('good.example', 'Host: shared.example\r\n')), ['', 'ECONNRESET']],
      [
        'a target that is not the Host',
        () => say(request('good.example', '', 'http://shared.example/')),
        ['', 'ECONNRESET'],
      ],
      ['CONNECT', () => say('CONNECT good.example:443 HTTP/1.1\r\nHost: good.example\r\n\r\n'), ['', 'ECONNRESET']],
      [
        'a body of two lengths',
        () => say(request('good.example', `Content-Length: 90\r\nTransfer-Encoding: chunked\r\n`)),
        ['', 'ECONNRESET'],
      ],
      [
        'a request inside a body’s end',
        () =>
          say(`${request('good.example', 'Transfer-Encoding: chunked\r\n')}0\r\n\r\n${lastRequest('shared.example')}`),
        [expect.not.stringContaining('shared'), over],
      ],
      ['HTTP/2 without TLS', () => say('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), ['', 'ECONNRESET']],
      [
        'an upgrade to HTTP/2',
        () => say(`${request('good.example', 'Upgrade: h2c\r\nConnection: Upgrade\r\n')}PRI`),
        [expect.not.stringContaining('PRI'), over],
      ],
      ['a name at a private address', () => tls(lan.address, 'private.example'), 'ECONNREFUSED'],
      ['a name at a private address, asked for elsewhere', () => tls(inet.address, 'private.example'), 'ECONNRESET'],
      ['a name at a loopback address', () => tls(inet.address, 'loop.example'), 'ECONNRESET'],
      ['a name in the platform’s own range', () => tls(inet.address, 'platform.example', 853), 'ECONNRESET'],
      ['a name that is nowhere', () => tls(inet.address, 'gone.example'), 'ECONNRESET'],
      ['QUIC', () => ask(guest, 'datagram', inet.address, '443', 'initial'), expect.stringMatching(/^E/)],
      ['another resolver', () => lookUp('good.example', inet.address), 'ECONNREFUSED'],
      ['DNS over HTTPS', () => tls(inet.address, 'dns.example'), 'ECONNRESET'],
      [
        'a datagram in fragments',
        () => ask(guest, 'datagram', inet.address, '443', 'x'.repeat(4000)),
        expect.stringMatching(/^E/),
      ],
      ['IPv6', () => ask(guest, 'connect', '2001:db8::1', '443'), expect.stringMatching(/^E/)],
      ['DNS over TLS', () => tls(inet.address, 'shared.example', 853), 'ECONNRESET'],
      ['the address of another name by DNS', () => lookUp('bad.example'), 'EREFUSED'],
      ['what leaves in a name by DNS', () => lookUp('c2VjcmV0.tunnel.example'), 'EREFUSED'],
    ])('refuses %s', async (_what, attempt, result) => {
      expect(await attempt()).toEqual(result)
    })
  })

  it('has told nobody of the names that are not allowed', async () => {
    dns.say('')
    const asked = await askedFor('good.example')
    expect(asked.filter((name) => /bad|tunnel|shared|notgood/.test(name))).toEqual([])
  })

  /** What the name server was asked for up to a question that is made now. */
  async function askedFor(name: string): Promise<string[]> {
    await lookUp(`${name}`)
    const seen: string[] = []
    for (let line = String(await dns.line()); ; line = String(await dns.line())) {
      seen.push(line)
      if (line === name && seen.length > 20) return seen
    }
  }

  it('runs as its own user, without root', async () => {
    const [pid] = (await run('ip', ['netns', 'pids', `${PREFIX}flt`])).trim().split('\n')
    const status = await readFile(`/proc/${pid}/status`, 'utf8')
    expect(status).toMatch(new RegExp(`^Uid:\\s+${UID}\\s+${UID}\\s+${UID}\\s+${UID}$`, 'm'))
    expect(status).toMatch(/^CapEff:\s+0+$/m)
    expect(status).toMatch(/^CapPrm:\s+0+$/m)
  })

  describe('with internet on and names denied', () => {
    beforeAll(() => apply(without))

    it.each([
      ['TLS for another name', () => tls(inet.address, 'good.example'), 'good good.example'],
      [
        'HTTP for another name',
        () => say(lastRequest('good.example')),
        [expect.stringContaining('good good.example /'), 'end'],
      ],
      ['another name by DNS', () => lookUp('good.example'), [inet.address]],
    ])('lets through %s', async (_what, attempt, result) => {
      expect(await attempt()).toEqual(result)
    })

    it.each([
      ['TLS for the name', () => tls(other.address, 'bad.example'), 'ECONNRESET'],
      ['TLS for a name below it', () => tls(other.address, 'www.bad.example'), 'ECONNRESET'],
      ['the name at another address', () => tls(inet.address, 'bad.example'), 'ECONNRESET'],
      ['HTTP for the name', () => say(lastRequest('bad.example'), { address: other.address }), ['', 'ECONNRESET']],
      ['HTTP for its address', () => say(lastRequest(other.address), { address: other.address }), ['', 'ECONNRESET']],
      ['TLS without SNI', () => tls(other.address), 'ECONNRESET'],
      ['QUIC', () => ask(guest, 'datagram', other.address, '443', 'initial'), expect.stringMatching(/^E/)],
      ['another resolver', () => lookUp('bad.example', inet.address), 'ECONNREFUSED'],
      ['the name by DNS', () => lookUp('bad.example'), 'EREFUSED'],
    ])('refuses %s', async (_what, attempt, result) => {
      expect(await attempt()).toEqual(result)
    })

    it('lets through by address alone what `allow` has, whatever its protocol', async () => {
      await apply({ ...without, allow: [other.address] })
      expect(await ask(guest, 'datagram', other.address, '443', 'initial')).toBe('initial')
      expect(await ask(guest, 'datagram', other.address, '443', 'x'.repeat(4000))).toBe('x'.repeat(4000))
      expect(await tls(other.address)).toBe('bad nobody')
      await apply(without)
    })
  })

  it('lets a name in `allow` beat `deny`, by name and by address', async () => {
    await apply({
      internet: true,
      allow: ['good.example'],
      deny: ['198.51.100.0/24', 'good.example', 'shared.example'],
    })
    expect(await tls(inet.address, 'good.example')).toBe('good good.example')
    expect(await tls(inet.address, 'shared.example')).toBe('ECONNRESET')
    await apply({ internet: true, allow: ['good.example'], deny: [`${inet.address}/32`] })
    expect(await tls(inet.address, 'good.example')).toBe('good good.example')
    expect(await tls(inet.address, 'shared.example')).toBe('ECONNRESET')
    expect(await tls(other.address, 'bad.example')).toBe('bad bad.example')
  })

  describe('a change, while it runs', () => {
    const session = async (name: string, address = inet.address): Promise<Background> => {
      const opened = new Background(guest, 'secure', address, '443', name)
      expect(await opened.line()).toContain(name)
      return opened
    }
    const echoes = async (each: Background, text: string): Promise<void> => {
      each.say(text)
      expect(await each.line()).toBe(text)
    }

    it('ends connections of names that it forbids, without a word from either end, and no others', async () => {
      await apply(only)
      await using kept = await session('good.example')
      await using ended = await session('a.wide.example')
      await apply({ ...only, allow: ['good.example'] })
      expect(await ended.line()).toEqual(cut)
      await echoes(kept, 'still there')
      await apply({ internet: true, allow: [], deny: ['a.wide.example'] })
      await echoes(kept, 'with another policy')
      await apply(open)
      await echoes(kept, 'without names')
      await apply({ internet: false, allow: [], deny: [] })
      expect(await kept.line()).toEqual(cut)
    })

    it('ends what was connected by address alone, where names decide from now on', async () => {
      await apply(open)
      await using connected = await session('good.example')
      await apply(only)
      connected.say('who are you?')
      expect(await connected.line()).toEqual(cut)
      await apply(open)
      expect(await tls(inet.address)).toBe('good nobody')
    })

    it('goes on through a restart of the host agent, and answers no name until the policy is loaded', async () => {
      await apply(only)
      await using kept = await session('good.example')
      await network.stop()
      network = make()
      expect(
        (await network.start({ inUse: new Map([[slot.index, { vmId: 'cl-one', owner: 'cl-one' }]]) })).adopted,
      ).toEqual([slot])
      await echoes(kept, 'before the policy is loaded')
      expect(await tls(inet.address, 'shared.example')).toBe('ECONNRESET')
      expect(await lookUp('good.example')).toBe('EREFUSED')
      await apply(only)
      expect(await lookUp('good.example')).toEqual([inet.address])
      await echoes(kept, 'after')
      expect(await tls(inet.address, 'good.example')).toBe('good good.example')
    })

    it('refuses names while the filter is away, and lets them through when it is back', async () => {
      await apply(only)
      await using ended = await session('good.example')
      const [pid = ''] = (await run('ip', ['netns', 'pids', `${PREFIX}flt`])).trim().split('\n')
      process.kill(Number(pid), 'SIGKILL')
      expect(await ended.line()).toMatch(/^(ECONNRESET|EPIPE|ended)$/)
      const results = new Set<unknown>()
      await expect
        .poll(
          async () => {
            results.add(await tls(inet.address, 'shared.example'))
            return await tls(inet.address, 'good.example')
          },
          { timeout: 60_000 },
        )
        .toBe('good good.example')
      expect([...results].filter((result) => !/^E(CONNRESET|CONNREFUSED)$/.test(String(result)))).toEqual([])
    })

    it('leaves nothing in the filter when the slot is given up, and nothing of the next one’s', async () => {
      const second = await network.acquire('cl-two')
      await network.applyPolicy(second.index, only)
      const links = async () => await run('ip', ['-n', `${PREFIX}flt`, '-o', 'link'])
      expect(await links()).toContain(`s${second.index}@`)
      await network.release(second.index, 'cl-two')
      expect(await links()).not.toContain(`s${second.index}@`)
      const third = await network.acquire('cl-three')
      expect(third.index).toBe(second.index)
      await network.applyPolicy(third.index, only)
      expect(await links()).toContain(`s${third.index}@`)
      expect(await network.refused(third.index)).toEqual([])
      await network.release(third.index, 'cl-three')
    })
  })

  describe('of a capsule that learns', () => {
    const learned = async () => (await network.learned(slot.index)).destinations

    it('notes names where they are said, and addresses where none is, whatever lets them through', async () => {
      await apply({ internet: true, allow: [lan.address], deny: [], learn: true })
      expect(await tls(inet.address, 'good.example')).toBe('good good.example')
      expect(await tls(inet.address, 'shared.example', 853)).toBe('good shared.example')
      expect(await tls(inet.address)).toBe('good nobody')
      expect(await say(lastRequest('bad.example'), { address: other.address })).toEqual([
        expect.stringContaining('bad bad.example /'),
        'end',
      ])
      expect(await say(lastRequest('lan.example'), { address: lan.address })).toEqual([
        expect.stringContaining('lan lan.example /'),
        'end',
      ])
      expect(await lookUp('bad.example')).toEqual([other.address])
      expect(await ask(guest, 'datagram', other.address, '443', 'initial')).toBe('initial')
      const good = { protocol: 'tcp', namedBy: 'connection', address: inet.address, port: 443, count: 1 }
      const bad = { ...good, address: other.address, name: 'bad.example' }
      await expect.poll(learned).toHaveLength(6)
      expect(new Set(await learned())).toEqual(
        new Set([
          { ...good, name: 'good.example' },
          { ...good, name: 'shared.example', port: 853 },
          { protocol: 'tcp', address: inet.address, port: 443, count: 1 },
          { ...bad, port: 80 },
          { protocol: 'tcp', address: lan.address, port: 80, count: 1 },
          { ...bad, protocol: 'udp', namedBy: 'lookup' },
        ]),
      )
    })

    it('lets a server speak first, and refuses no less than without', async () => {
      await apply({ internet: true, allow: [], deny: [other.address, 'shared.example'], learn: true })
      expect(await tls(inet.address, 'good.example')).toBe('good good.example')
      expect(await tls(inet.address, 'shared.example')).toBe('ECONNRESET')
      expect(await tls(inet.address)).toBe('ECONNRESET')
      expect(await tls(other.address, 'bad.example')).toBe('ECONNREFUSED')
      expect(await ask(guest, 'connect', lan.address, '80')).toBe('ECONNREFUSED')
      await using first = new Background(inet.namespace, 'serve', String(PORT + 1))
      await first.ready()
      await apply({ internet: false, allow: [inet.address], deny: [], learn: true })
      expect(await ask(guest, 'connect', inet.address, String(PORT + 1))).toMatch(/^from /)
      expect(await ask(guest, 'connect', other.address, '80')).toBe('ECONNREFUSED')
    })

    it('ends what it had let through by address when names decide, and forgets all when the learning ends', async () => {
      await apply({ ...open, learn: true })
      await using watched = new Background(guest, 'secure', inet.address, '443', 'good.example')
      expect(await watched.line()).toContain('good.example')
      await apply(open)
      watched.say('without learning')
      expect(await watched.line()).toBe('without learning')
      expect(await learned()).toEqual([])
      await apply(only)
      expect(await watched.line()).toEqual(cut)
    })
  })

  describe('of a capsule with rules', () => {
    const PORT_OF_API = 8443
    const headers = { authorization: 'Bearer of the edge' }
    let ours: Credentials
    let ruled: EgressPolicy
    const get = (ca: string) => ask(guest, 'get', inet.address, String(PORT_OF_API), 'api.example', join(platform, ca))
    const answered = (value: string) => [200, expect.stringContaining(`"authorization":"${value}"`)]

    beforeAll(async () => {
      ours = await createAuthority('ours', undefined)
      const { cert, key } = await issueHostCertificate(world, 'api.example')
      for (const [name, text] of Object.entries({ 'ours.pem': ours.cert, 'api.pem': cert, 'api.key': key })) {
        await writeFile(join(platform, name), text)
      }
      const api = new Background(inet.namespace, 'api', join(platform, 'api.pem'), join(platform, 'api.key'), '8443')
      running.push(api)
      await api.ready()
      ruled = { ...open, intercept: true, rules: [{ host: 'api.example', headers }], authority: ours }
    })

    it('sets headers on their way, and leaves other TLS, and protocols, as they are', async () => {
      await apply(ruled)
      expect(await get('ours.pem')).toEqual(answered(headers.authorization))
      expect(await tls(inet.address, 'good.example')).toBe('good good.example')
      expect(await tls(inet.address)).toBe('good nobody')
    }, 60_000)

    it('goes on through a restart of the host agent, which does not know them any more', async () => {
      await apply(ruled)
      await network.stop()
      network = make()
      await network.start({ inUse: new Map([[slot.index, { vmId: 'cl-one', owner: 'cl-one' }]]) })
      const { rules: _, ...remembered } = ruled
      await apply(remembered)
      expect(await get('ours.pem')).toEqual(answered(headers.authorization))
    })

    it('lets nobody through whom the policy does not, and ends with the rules', async () => {
      await apply({ ...ruled, internet: false, allow: ['good.example'] })
      expect(await get('ours.pem')).toBe('ECONNRESET')
      await apply({ ...ruled, internet: false, allow: ['api.example'] })
      expect(await get('ours.pem')).toEqual(answered(headers.authorization))
      await apply(open)
      expect(await get('world.pem')).toEqual([200, expect.not.stringContaining('authorization')])
    })
  })

  it('passes on how each end ends', async () => {
    await apply({ ...only, allow: ['good.example'] })
    // The server ends after its answer; the guest hears of it, no more and no less.
    expect(await say(lastRequest('good.example'))).toEqual([expect.stringMatching(/good good.example \/$/), 'end'])
  })

  it('counts what it refused, by name where there was one', async () => {
    await apply(without)
    await apply({ ...only, deny: ['bad.example'] })
    for (const _ of [1, 2]) await tls(inet.address, 'never.example')
    await tls(other.address, 'bad.example')
    await say('hello\r\n\r\n')
    await lookUp('asked.example')
    const refused = await network.refused(slot.index)
    expect(refused).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          name: 'never.example',
          address: inet.address,
          port: 443,
          reason: 'not_allowed',
          count: 2,
        }),
        expect.objectContaining({
          name: 'bad.example',
          address: other.address,
          port: 443,
          reason: 'denied',
          rule: 'bad.example',
        }),
        expect.objectContaining({ address: inet.address, port: 80, reason: 'no_name' }),
        expect.objectContaining({ name: 'asked.example', port: 53, reason: 'not_allowed' }),
      ]),
    )
    expect(refused[0]).toMatchObject({ name: 'asked.example' })
    expect(refused.map(({ lastAtMs }) => lastAtMs)).toEqual(
      refused.map(({ lastAtMs }) => lastAtMs).sort((a, b) => b - a),
    )
  })

  it('is gone from the host when the network is', async () => {
    const pids = (await run('ip', ['netns', 'pids', `${PREFIX}flt`])).trim().split('\n')
    expect(pids).toHaveLength(1)
    await network.removeAll()
    expect(await run('ip', ['netns', 'list'])).not.toContain(`${PREFIX}flt`)
    await expect.poll(() => readFile(`/proc/${pids[0]}/stat`, 'utf8').catch(() => 'gone')).toMatch(/^gone$|\) Z /)
  })
})
