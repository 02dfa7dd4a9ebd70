import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { createSecureContext } from 'node:tls'
import { type AppError, hostIds } from '@wrenn/base'
import {
  type Credentials,
  createCertificateRequest,
  createHostAuthority,
  createRevocationList,
  hostName,
  issueToControlPlane,
  issueToHost,
  readCertificateRequest,
} from '@wrenn/certificates'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fromHostError } from './errors.js'
import { RemoteHost } from './remote-host.js'
import { createHostClient } from './transport.js'
import { createTunnels } from './tunnel.js'

const DAY_MS = 24 * 3600 * 1000
const CAPSULE = `cl-${'0'.repeat(25)}`
const HOST = hostIds.create()
const { signal } = new AbortController()

let host: FakeHost
let authority: Credentials
beforeAll(async () => {
  host = await FakeHost.start()
  authority = await createHostAuthority()
})
afterAll(async () => await host[Symbol.asyncDispose]())

async function certify(id: string, issuer = authority, now = new Date()) {
  const { key, request } = await createCertificateRequest()
  const issued = await issueToHost(issuer, id, await readCertificateRequest(request), DAY_MS, now)
  return { key, ca: authority.cert, ...issued }
}

interface Trust {
  readonly revoked?: readonly string[]
  readonly caller?: Credentials
}

/** What a control plane calls a host with. */
async function targetAt(address: string, { revoked = [], caller }: Trust = {}) {
  const own = caller ?? (await issueToControlPlane(authority, DAY_MS))
  const revocations = revoked.map((serial) => ({ serial, revokedAt: new Date() }))
  const crl = await createRevocationList(authority, revocations, DAY_MS)
  const context = createSecureContext({ ...own, ca: authority.cert, crl, minVersion: 'TLSv1.3' })
  return { hostId: HOST, address, name: hostName(HOST), era: '', context }
}

/** What a call comes to: the host's id, or the code of our error and the reason below it. */
async function callOf(remote: RemoteHost): Promise<string> {
  const { client, close } = createHostClient(remote)
  try {
    return (await client.getHost({}, { timeoutMs: 10_000 })).hostId
  } catch (error) {
    return `${fromHostError(error).code}: ${String(error)}`
  } finally {
    close()
  }
}

describe('a host that has joined', () => {
  it('is called by mutual TLS', async () => {
    await using door = await host.listenRemotely(await certify(HOST))
    const remote = new RemoteHost()
    remote.aim(await targetAt(door.address))
    expect(await callOf(remote)).toBe(host.hostId)
    expect(remote.address).toBe(`https://${door.address}`)
  })

  it('is not called when the certificate is not its own, is over, was revoked, or is of somebody else', async () => {
    const foreign = await createHostAuthority()
    const revoked = await certify(HOST)
    const others = {
      altnames: await certify(hostIds.create()),
      'certificate has expired': await certify(HOST, authority, new Date(Date.now() - 3 * DAY_MS)),
      'certificate revoked': revoked,
      'unable to verify the first certificate|unable to get local issuer|self-signed|unable to get certificate CRL':
        await certify(HOST, foreign),
    }
    for (const [reason, credentials] of Object.entries(others)) {
      await using door = await host.listenRemotely(credentials)
      const remote = new RemoteHost()
      remote.aim(await targetAt(door.address, { revoked: [revoked.serial] }))
      expect(await callOf(remote), reason).toMatch(new RegExp(`^host_unavailable: .*(?:${reason})`))
      const opened = createTunnels(remote)({ capsuleId: CAPSULE, port: 80 }, signal)
      await expect(opened, reason).rejects.toMatchObject({ code: 'host_unavailable' })
    }
  })

  it('does not take a stranger for a control plane', async () => {
    const foreign = await createHostAuthority()
    await using door = await host.listenRemotely(await certify(HOST))
    for (const caller of [await issueToControlPlane(foreign, DAY_MS), await certify(hostIds.create())]) {
      const remote = new RemoteHost()
      remote.aim(await targetAt(door.address, { caller: { cert: caller.cert, key: caller.key } }))
      expect(await callOf(remote)).toMatch(/^host_unavailable: /)
    }
  })

  it('is nowhere until it is known, and called no more when it is not', async () => {
    await using door = await host.listenRemotely(await certify(HOST))
    const remote = new RemoteHost()
    const { client, close } = createHostClient(remote)
    const code = async (): Promise<string> =>
      await client.getHost({}, { timeoutMs: 10_000 }).then(
        () => 'answered',
        (error: unknown) => fromHostError(error).code,
      )
    expect([remote.address, await code()]).toEqual(['nowhere', 'host_unavailable'])
    remote.aim(await targetAt(door.address))
    expect(await code()).toBe('answered')
    // A stream that is open when the host is trusted no more ends with that.
    const watching = (async () => {
      for await (const _event of client.watchCapsules({})) remote.aim(undefined)
    })()
    await expect(watching).rejects.toThrow()
    expect(await code()).toBe('host_unavailable')
    close()
  })

  it('opens tunnels that carry large bytes both ways at once, each direction to its own end', async () => {
    await using door = await host.listenRemotely(await certify(HOST))
    const remote = new RemoteHost()
    remote.aim(await targetAt(door.address))
    const { client, close } = createHostClient(remote)
    await client.createCapsule({ capsuleId: CAPSULE, template: 'minimal', vcpus: 1, memoryMib: 64 })
    const size = 8 * 1024 * 1024
    const service = createServer({ allowHalfOpen: true }, (socket: Socket) => {
      let got = 0
      socket.on('error', () => {}) // of a tunnel that breaks
      socket.on('data', (chunk) => {
        got += chunk.length
      })
      socket.write(Buffer.alloc(size))
      socket.once('end', () => socket.end(`got ${got}`))
    })
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve))
    const bound = service.address()
    const port = typeof bound === 'object' && bound !== null ? bound.port : 0
    const socket = await createTunnels(remote)({ capsuleId: CAPSULE, port }, signal)
    socket.end(Buffer.alloc(size))
    let length = 0
    let tail = ''
    for await (const chunk of socket) {
      length += chunk.length
      tail = chunk.subarray(-20).toString('latin1')
    }
    expect([length, tail.endsWith(`got ${size}`)]).toEqual([size + `got ${size}`.length, true])
    const refused = createTunnels(remote)({ capsuleId: `cl-${'1'.repeat(25)}`, port }, signal)
    await expect(refused.catch((error: AppError) => error.code)).resolves.toBe('capsule_not_found')
    const left = await createTunnels(remote)({ capsuleId: CAPSULE, port }, signal)
    const closed = once(left, 'close')
    remote.aim(await targetAt('127.0.0.1:1'))
    await closed
    remote.aim(await targetAt(door.address))
    await client.destroyCapsule({ capsuleId: CAPSULE })
    close()
    service.close()
  })
})
