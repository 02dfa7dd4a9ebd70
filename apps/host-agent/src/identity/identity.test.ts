import { X509Certificate } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import { type Credentials, createHostAuthority, issueToHost, readCertificateRequest } from '@wrenn/certificates'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type HostIdentity, IDENTITY_FILE, JOINING_FILE, readIdentity } from './identity-file.js'
import { joinPlatform } from './join.js'
import { IdentityRenewal } from './renewal.js'

const DAY_MS = 24 * 3600 * 1000
const ID = '1'.repeat(25)
const TOKEN = `wrj_${ID}_${'s'.repeat(43)}`

let dir: string
let url: string
let server: Server
let authority: Credentials
let asked: { readonly path: string; readonly body: Record<string, unknown> }[]
/** What the platform does with the next requests instead of answering. */
let faults: (number | 'lose')[]

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-identity-'))
  authority = await createHostAuthority()
  asked = []
  faults = []
  server = createServer(async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const body: Record<string, unknown> = JSON.parse(Buffer.concat(chunks).toString())
    asked.push({ path: request.url ?? '', body })
    const fault = faults.shift()
    if (fault === 'lose') return void response.destroy()
    if (fault !== undefined) {
      const error = { code: 'host_not_trusted', message: 'This token lets no host in.' }
      return void response.writeHead(fault).end(JSON.stringify({ error }))
    }
    const issued = await issueToHost(
      authority,
      `host-${ID}`,
      await readCertificateRequest(String(body.csr)),
      7 * DAY_MS,
    )
    const answer = {
      ...{ host: { id: `host-${ID}` }, refresh_token: `refresh-${asked.length}` },
      ...{ cert_pem: issued.cert, ca_cert_pem: authority.cert },
    }
    response.writeHead(201).end(JSON.stringify(answer))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`
})
afterEach(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await rm(dir, { recursive: true })
})

const joining = async (more: object = {}) => await joinPlatform({ dir, url, token: TOKEN, ...more })

describe('a machine that joins', () => {
  it('keeps what it is by for root alone, and tells the platform nothing of its key', async () => {
    const joined = await joining({ address: 'there.example:7000' })
    expect(joined).toMatchObject({ hostId: `host-${ID}`, listen: '0.0.0.0:7000', url })
    expect((await stat(join(dir, IDENTITY_FILE))).mode & 0o777).toBe(0o600)
    expect((await readFile(join(dir, 'host-id'), 'utf8')).trim()).toBe(`host-${ID}`)
    const { address: _address, ...kept } = joined
    expect(await readIdentity(dir)).toEqual(kept)
    const facts = { arch: process.arch, cpu_cores: expect.any(Number), memory_mb: expect.any(Number) }
    expect(asked[0]).toMatchObject({
      path: '/v1/hosts/register',
      body: { token: TOKEN, address: 'there.example:7000', ...facts },
    })
    expect(JSON.stringify(asked)).not.toContain('PRIVATE KEY')
    expect(await stat(join(dir, JOINING_FILE)).catch(() => 'gone')).toBe('gone')
  })

  it('asks for the same key again when an answer was lost, and says by which address it is reached', async () => {
    faults = ['lose']
    await expect(joining()).rejects.toMatchObject({ code: 'connection_failed' })
    expect((await stat(join(dir, JOINING_FILE))).mode & 0o777).toBe(0o600)
    await joining()
    expect(asked.map(({ body }) => body.csr)).toEqual([asked[0]?.body.csr, asked[0]?.body.csr])
    expect(asked[1]?.body.address).toBe('127.0.0.1:7443')
  })

  it('listens where it is reached: at an address of IPv6 too', async () => {
    expect(await joining({ address: '[2001:db8::1]:7000' })).toMatchObject({ listen: '[::]:7000' })
  })

  it('is refused with what the platform says, and by what protects nobody', async () => {
    faults = [401]
    await expect(joining()).rejects.toMatchObject({ code: 'host_not_trusted' })
    const refused = { code: 'invalid_request' }
    for (const bad of ['http://wrenn.example', 'ftp://127.0.0.1', 'wrenn.example', `${url}?a=1`]) {
      await expect(joining({ url: bad }), bad).rejects.toMatchObject(refused)
    }
    await expect(joining({ token: 'wrj_1' })).rejects.toMatchObject(refused)
    for (const bad of ['10.1.2.3', '7443', '10.1.2.3:0', '10.1.2.3:70000', '2001:db8::1:7443']) {
      await expect(joining({ address: bad }), bad).rejects.toMatchObject(refused)
      await expect(joining({ listen: bad }), bad).rejects.toMatchObject(refused)
    }
    expect(asked).toHaveLength(1)
    await expect(joining({ caFile: join(dir, 'none.pem') })).rejects.toMatchObject(refused)
    expect(await readIdentity(dir)).toBeUndefined()
  })

  it('does not become another host while it has capsules of one', async () => {
    await writeFile(join(dir, 'host-id'), `host-${'9'.repeat(25)}\n`)
    await mkdir(join(dir, 'journal'))
    await writeFile(join(dir, 'journal', 'cl-1.json'), '{}')
    await expect(joining()).rejects.toMatchObject({ code: 'conflict' })
    expect(asked).toEqual([])
    await rm(join(dir, 'journal', 'cl-1.json'))
    await joining()
  })

  it('does not take the directory of a platform', async () => {
    await writeFile(join(dir, 'encryption-key'), '')
    await expect(joining()).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining('encryption-key'),
    })
    expect(asked).toEqual([])
  })

  it('says so when what it is by cannot be read', async () => {
    await writeFile(join(dir, IDENTITY_FILE), '{"version":1')
    await expect(readIdentity(dir)).rejects.toMatchObject({ code: 'invalid_config' })
  })
})

describe('a host', () => {
  const renewed: HostIdentity[] = []
  const renewalAt = async (days: number): Promise<IdentityRenewal> => {
    const identity = await readIdentity(dir)
    if (identity === undefined) throw new Error('it has not joined')
    const now = (): Date => new Date(Date.now() + days * DAY_MS)
    const onRenewed = (next: HostIdentity): void => void renewed.push(next)
    return new IdentityRenewal({ dir, identity, logger: silentLogger, onRenewed, now })
  }
  beforeEach(() => {
    renewed.length = 0
  })

  it('gets the next certificate after two thirds of the life of one, for another key', async () => {
    const before = await joining()
    await (await renewalAt(4)).look()
    expect(renewed).toEqual([])
    await (await renewalAt(5)).look()
    const after = await readIdentity(dir)
    expect(renewed).toEqual([after])
    expect(asked.at(-1)).toMatchObject({ path: '/v1/hosts/auth/refresh', body: { refresh_token: 'refresh-1' } })
    expect(after?.refreshToken).toBe('refresh-2')
    expect(after?.key).not.toBe(before.key)
    expect(new X509Certificate(after?.certificate ?? '').publicKey.export({ type: 'spki', format: 'pem' })).not.toBe(
      new X509Certificate(before.certificate).publicKey.export({ type: 'spki', format: 'pem' }),
    )
    expect(after?.pending).toBeUndefined()
  })

  it('keeps what it has until the next one is there, and asks for the same key even after it was killed', async () => {
    const before = await joining()
    faults = ['lose', 401]
    const renewal = await renewalAt(5)
    await renewal.look()
    await renewal.look()
    expect(await readIdentity(dir)).toMatchObject({ certificate: before.certificate, refreshToken: 'refresh-1' })
    await (await renewalAt(5)).look()
    const requests = asked.slice(1).map(({ body }) => body.csr)
    expect([requests.length, new Set(requests).size]).toEqual([3, 1])
    expect(renewed).toHaveLength(1)
  })
})
