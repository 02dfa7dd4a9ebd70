import { spawn } from 'node:child_process'
import { lookup } from 'node:dns/promises'
import { readFile } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type TestCapsule, useCapsule, usePlatform } from '../harness/api.js'
import { collect } from '../harness/platform.js'

const { api, platform } = usePlatform()
const AGENT_PORT = 49_983
/** The registry that `apt` inside the guest is set up for: the one public host a capsule is sure to need. */
const REGISTRY = 'deb.debian.org'

const capsule = useCapsule()
let neighbour: TestCapsule
let neighbourAddress: string
let listener: Server
let listenerPort: number
let heardConnections = 0

beforeAll(async () => {
  neighbour = await api.create()
  await neighbour.background('cd /etc && exec python3 -m http.server 8000', { tag: 'http' })
  await neighbour.text('until curl -sf http://127.0.0.1:8000/hostname; do sleep 0.1; done')
  const journal: unknown = JSON.parse(await readFile(join(platform.dir, 'journal', `${neighbour.id}.json`), 'utf8'))
  neighbourAddress = /"guestAddress":"([^"]+)"/.exec(JSON.stringify(journal))?.[1] ?? ''
  listener = createServer((socket) => {
    heardConnections += 1
    socket.end()
  })
  await new Promise<void>((resolve) => listener.listen(0, '0.0.0.0', resolve))
  const address = listener.address()
  listenerPort = typeof address === 'object' && address !== null ? address.port : 0
})
afterAll(async () => {
  await new Promise((resolve) => listener.close(resolve))
  await neighbour.destroy()
})

type Target = readonly [host: string, port: number]

/** What connecting gives, by target: `open`, or the name of the error. */
async function tryAll(from: TestCapsule, targets: readonly Target[]): Promise<Record<string, string>> {
  const program = `
import concurrent.futures, errno, json, socket, sys
def attempt(target):
    try:
        socket.create_connection(tuple(target), 4).close()
        return "open"
    except socket.timeout:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
targets = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(json.dumps({"%s:%d" % tuple(t): r for t, r in zip(targets, pool.map(attempt, targets))}))`
  const { stdout, stderr } = await from.exec('python3', ['-c', program], {
    stdin: JSON.stringify(targets),
    timeout_sec: 120,
  })
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout)
}

/** Every target is refused at once: a capsule must not hang on what it may not reach. */
async function expectRefused(from: TestCapsule, targets: readonly Target[]): Promise<void> {
  expect(targets.length).toBeGreaterThan(0)
  const found = await tryAll(from, targets)
  const refused = ['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'EACCES']
  expect(Object.entries(found).filter(([, result]) => !refused.includes(result))).toEqual([])
}

function hostAddresses(): string[] {
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ family }) => family === 'IPv4')
    .map(({ address }) => address)
}

async function canConnect(host: string, port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 5000 })
    const answer = (is: boolean) => () => {
      socket.destroy()
      resolve(is)
    }
    socket.once('connect', answer(true)).once('error', answer(false)).once('timeout', answer(false))
  })
}

describe('from inside a capsule', () => {
  it('the internet is reachable by name, at the hosts that apt is set up for', async () => {
    const sources = await capsule().text("sed -n 's/^URIs: //p' /etc/apt/sources.list.d/*")
    expect(new Set(sources.split('\n').map((uri) => new URL(uri).hostname))).toEqual(new Set([REGISTRY]))
    const url = `http://${REGISTRY}/debian/dists/bookworm/InRelease`
    expect(await capsule().text(`curl -sS --max-time 60 ${url} | head -1`, { timeout_sec: 90 })).toBe(
      '-----BEGIN PGP SIGNED MESSAGE-----',
    )
  })

  it("the cloud's metadata service is refused", async () => {
    await expectRefused(capsule(), [
      ['169.254.169.254', 80],
      ['169.254.170.2', 80],
    ])
  })

  it("the host's services are refused on every address that it has", async () => {
    const addresses = hostAddresses().filter((address) => !address.startsWith('127.'))
    for (const address of addresses) expect([address, await canConnect(address, listenerPort)]).toEqual([address, true])
    const heardBefore = heardConnections
    await expectRefused(
      capsule(),
      addresses.flatMap((address): Target[] => [
        [address, listenerPort],
        [address, platform.port],
        [address, 22],
      ]),
    )
    expect(heardConnections).toBe(heardBefore)
  })

  it('the gateway serves names and nothing else', async () => {
    await expectRefused(capsule(), [
      ['169.254.0.22', platform.port],
      ['169.254.0.22', listenerPort],
      ['169.254.0.22', 22],
      ['169.254.0.22', 80],
    ])
  })

  it('another capsule is refused, its agent too', async () => {
    expect(await canConnect(neighbourAddress, 8000)).toBe(true)
    await expectRefused(capsule(), [
      [neighbourAddress, 8000],
      [neighbourAddress, AGENT_PORT],
      [neighbourAddress, 22],
    ])
  })

  it('private and special ranges are refused', async () => {
    const resolvers = (await readFile('/etc/resolv.conf', 'utf8')).matchAll(/^nameserver (\d+\.\S+)/gm)
    await expectRefused(capsule(), [
      ...[...resolvers].map(([, address = '']): Target => [address, 53]),
      ['10.0.0.1', 80],
      ['10.205.0.1', 80],
      ['172.16.0.1', 80],
      ['192.168.0.1', 80],
      ['192.168.255.254', 443],
      ['100.64.0.1', 80],
      ['224.0.0.1', 80],
      ['255.255.255.255', 80],
    ])
  })

  it('a pretended source address gets nowhere', async () => {
    const heardBefore = heardConnections
    await capsule().text(`ip addr add ${neighbourAddress}/32 dev eth0`)
    const result = await capsule().sh(`curl -sS --max-time 3 --interface ${neighbourAddress} http://${REGISTRY}/`)
    expect(result.exit_code).not.toBe(0)
    await capsule().text(`ip addr del ${neighbourAddress}/32 dev eth0`)
    expect(heardConnections).toBe(heardBefore)
  })

  it('IPv6 leads nowhere', async () => {
    expect((await capsule().sh('curl -6 -sS --max-time 3 http://[2001:db8::1]/')).exit_code).not.toBe(0)
  })
})

describe('an egress policy', () => {
  it('without internet blocks addresses and names, and lets through what it allows', async () => {
    const { address } = await lookup(REGISTRY, { family: 4 })
    await using closed = await api.create({ egress: { internet: false } })
    await expectRefused(closed, [[address, 80]])
    expect((await closed.sh(`getent hosts ${REGISTRY}`)).exit_code).not.toBe(0)
    await using open = await api.create({ egress: { internet: false, allow: [address] } })
    expect(await tryAll(open, [[address, 80]])).toEqual({ [`${address}:80`]: 'open' })
  })

  it('denies what it names', async () => {
    const { address } = await lookup(REGISTRY, { family: 4 })
    await using denying = await api.create({ egress: { deny: [`${address}/32`] } })
    await expectRefused(denying, [[address, 80]])
  })

  it('changes while the capsule runs, ends what becomes forbidden, and outlives a pause and a rollback', async () => {
    const { address } = await lookup(REGISTRY, { family: 4 })
    await using changing = await api.create()
    const set = async (egress: object): Promise<void> => {
      const options = { json: egress, query: { wait_sec: '60' } }
      expect(await api.json('PUT', `${changing.path}/egress`, options)).toMatchObject({ in_force: true })
    }
    // A connection that says how its end came.
    const program = `
import os, socket, time
s = socket.create_connection(("${address}", 80), 30)
open("/root/opened", "w").close()
while not os.path.exists("/root/go"): time.sleep(0.1)
try:
    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    s.recv(1)
    print("answered")
except OSError as error:
    print(type(error).__name__)`
    await changing.background(`cat > /root/hold.py <<'END'${program}\nEND\npython3 /root/hold.py > /root/end`, {
      tag: 'hold',
    })
    await changing.text('until [ -e /root/opened ]; do sleep 0.1; done')
    const point = await changing.checkpoint()
    await set({ deny: [address] })
    expect(await changing.text('touch /root/go; until [ -s /root/end ]; do sleep 0.1; done; cat /root/end')).toBe(
      'ConnectionResetError',
    )
    await expectRefused(changing, [[address, 80]])
    await changing.pause()
    await changing.resume()
    await expectRefused(changing, [[address, 80]])
    await changing.rollback(point.id)
    await expectRefused(changing, [[address, 80]])
    await set({})
    expect(await tryAll(changing, [[address, 80]])).toEqual({ [`${address}:80`]: 'open' })
  })

  it('lets through by name, wherever that is, and tells what it refused; also after a pause', async () => {
    const other = 'elsewhere.example'
    const { address } = await lookup(REGISTRY, { family: 4 })
    await using named = await api.create({ egress: { internet: false, allow: [REGISTRY] } })
    const statusOf = async (host: string): Promise<string> => {
      const curl = `curl -s -o /dev/null -m 60 -w '%{http_code}' --resolve ${other}:80:${address}`
      return (await named.sh(`${curl} http://${host}/debian/`)).stdout
    }
    const expectKept = async (): Promise<void> => {
      expect(await statusOf(REGISTRY)).toMatch(/^[234]\d\d$/)
      for (const host of [other, address]) expect([host, await statusOf(host)]).toEqual([host, '000'])
      expect((await named.sh(`getent hosts ${other}`)).exit_code).not.toBe(0)
      expect(await api.json('GET', `${named.path}/egress`)).toMatchObject({
        in_force: true,
        refused: expect.arrayContaining([
          expect.objectContaining({ name: other, address, port: 80, reason: 'not_allowed' }),
          expect.objectContaining({ name: other, port: 53, reason: 'not_allowed' }),
          expect.objectContaining({ address, port: 80, reason: 'no_name' }),
        ]),
      })
    }
    await expectKept()
    await named.pause()
    await named.resume()
    await expectKept()
    await api.json('PUT', `${named.path}/egress`, { json: { deny: [REGISTRY] }, query: { wait_sec: '60' } })
    expect(await statusOf(REGISTRY)).toBe('000')
  })

  it.each([
    ['allow', { allow: ['not-an-address'] }],
    ['deny', { deny: ['10.0.0.0/99'] }],
  ])('is refused when %s holds what is no address', async (_, egress) => {
    const labels = { refused: crypto.randomUUID() }
    const query = { wait_sec: '60' }
    expect(await api.refusal('POST', '/v1/capsules', { json: { egress, labels }, query })).toMatchObject({
      status: 400,
      code: 'invalid_request',
    })
    // The attempt is on record, as one that failed; it can be destroyed like any other.
    const recorded = await api.list({ label: `refused=${labels.refused}`, status: 'all' })
    for (const { id, state } of recorded) {
      expect(state).toBe('error')
      await api.json('DELETE', `/v1/capsules/${id}`)
    }
  })
})

describe('on the host', () => {
  it('nobody but the host agent reaches a guest', async () => {
    const program = `const s = require('node:net').connect(${AGENT_PORT}, '${neighbourAddress}')
      s.on('connect', () => process.exit(0)).on('error', () => process.exit(9)).setTimeout(5000, () => process.exit(8))`
    const asNobody = spawn(process.execPath, ['-e', program], { uid: 65_534, gid: 65_534, stdio: 'pipe' })
    expect((await collect(asNobody, '')).code).toBe(9)
    expect(await canConnect(neighbourAddress, AGENT_PORT)).toBe(true)
  })

  it("the guest's agent obeys nobody without its secret", async () => {
    for (const path of ['/init', '/files?path=/etc/passwd', '/metrics', '/process.Process/List']) {
      const response = await fetch(`http://${neighbourAddress}:${AGENT_PORT}${path}`, {
        method: path === '/init' || path.startsWith('/process') ? 'POST' : 'GET',
        headers: { 'content-type': 'application/json', 'X-Wrenn-Secret': 'guess' },
        ...(path === '/init' || path.startsWith('/process') ? { body: '{}' } : {}),
      })
      expect([path, response.status]).toEqual([path, 401])
    }
  })
})
