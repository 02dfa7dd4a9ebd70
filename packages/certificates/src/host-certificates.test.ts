import 'reflect-metadata' // before the rest, which here includes x509 itself

import { webcrypto, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type SecureContextOptions, type TLSSocket } from 'node:tls'
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
} from '@peculiar/x509'
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  CertificateRequestError,
  CONTROL_PLANE_NAME,
  type Credentials,
  createCertificateRequest,
  createHostAuthority,
  createRevocationList,
  hostName,
  type IssuedCertificate,
  isDueForRenewal,
  issueHostCertificate,
  issueToControlPlane,
  issueToHost,
  readCertificateRequest,
} from './index.js'

const DAY_MS = 24 * 3600 * 1000
const P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const HOST = `host-${'0'.repeat(25)}`

type Authority = Awaited<ReturnType<typeof createHostAuthority>>
let authority: Authority
beforeAll(async () => {
  authority = await createHostAuthority()
})

async function hostOf(
  issuer: Credentials,
  id = HOST,
  lifetimeMs = DAY_MS,
  now = new Date(),
): Promise<Credentials & IssuedCertificate> {
  const { key, request } = await createCertificateRequest()
  return { key, ...(await issueToHost(issuer, id, await readCertificateRequest(request), lifetimeMs, now)) }
}

/** A request with all that one could wish for. */
async function greedyRequest(algorithm: EcKeyGenParams & { hash?: string }, name: string, names: string[]) {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  return await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: { ...algorithm, hash: algorithm.hash ?? 'SHA-256' },
    extensions: [
      new BasicConstraintsExtension(true, 5, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign, true),
      new SubjectAlternativeNameExtension(names.map((value) => ({ type: 'dns', value }))),
    ],
  })
}
interface EcKeyGenParams {
  readonly name: string
  readonly namedCurve: string
}

const refusal = async (pem: string): Promise<string> =>
  await readCertificateRequest(pem).then(
    () => 'taken',
    (error: unknown) => (error instanceof CertificateRequestError ? error.message : `not refused: ${String(error)}`),
  )

/** Lets one end call another over TLS 1.3 as control planes and hosts do: `agreed`, or why not. */
async function call(
  host: Credentials & { readonly trusts: string; readonly lists?: string[] },
  caller: Partial<Credentials> & { readonly trusts: string[]; readonly lists?: string[] },
  servername = hostName(HOST),
): Promise<string> {
  const lists = (given: string[] | undefined): SecureContextOptions => (given === undefined ? {} : { crl: given })
  const { trusts, lists: ownLists, ...own } = host
  const server = createServer({
    ...{ cert: own.cert, key: own.key, ca: trusts, ...lists(ownLists) },
    ...{ requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' },
  })
  let refused: string | undefined
  server.on('secureConnection', (socket: TLSSocket) => socket.on('error', () => {}).end('hello'))
  server.on('tlsClientError', (error: NodeJS.ErrnoException) => {
    refused = `host: ${error.code ?? error.message}`
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no address')
  const { trusts: ca, lists: callerLists, ...credentials } = caller
  const socket = connect({
    ...{ host: '127.0.0.1', port: address.port, servername, minVersion: 'TLSv1.3' },
    ...{ ...credentials, ca, ...lists(callerLists) },
  })
  try {
    return await new Promise<string>((resolve) => {
      let heard = ''
      socket.on('data', (chunk: Buffer) => {
        heard += chunk.toString()
      })
      socket.once('error', (error: NodeJS.ErrnoException) =>
        resolve(`caller: ${error.code === 'UNSPECIFIED' ? error.message : error.code}`),
      )
      socket.once('close', () => resolve(heard === 'hello' ? 'agreed' : 'closed'))
    }).then((said) => (said === 'agreed' ? said : (refused ?? said)))
  } finally {
    socket.destroy()
    server.close()
  }
}

describe('a certificate request', () => {
  it('is read with the key that it is for', async () => {
    const { key, request } = await createCertificateRequest()
    expect(key).toMatch(/^-----BEGIN PRIVATE KEY-----/)
    const [first, again] = [await readCertificateRequest(request), await readCertificateRequest(request)]
    expect(first.keyHash).toMatch(/^[0-9a-f]{64}$/)
    expect(again.keyHash).toBe(first.keyHash)
    expect((await readCertificateRequest((await createCertificateRequest()).request)).keyHash).not.toBe(first.keyHash)
  })

  it('is refused for any key but one on P-256, and any signature but SHA-256', async () => {
    const rsa = { name: 'RSASSA-PKCS1-v1_5', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]) }
    const others = [
      { ...rsa, hash: 'SHA-256' },
      { name: 'ECDSA', namedCurve: 'P-384', hash: 'SHA-256' },
      { name: 'ECDSA', namedCurve: 'P-521', hash: 'SHA-512' },
      { name: 'Ed25519' },
    ]
    for (const algorithm of others) {
      const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
      if (!('privateKey' in keys)) throw new Error('no pair')
      const request = await Pkcs10CertificateRequestGenerator.create({ name: '', keys, signingAlgorithm: algorithm })
      expect(await refusal(request.toString('pem')), JSON.stringify(algorithm)).toContain('P-256')
    }
    const otherHash = await greedyRequest({ ...P256, hash: 'SHA-384' }, 'x', ['x'])
    expect(await refusal(otherHash.toString('pem'))).toContain('SHA-256')
  })

  it('is refused when anything was changed of what it says', async () => {
    const { request } = await createCertificateRequest()
    const { keyHash } = await readCertificateRequest(request)
    const body = Buffer.from(request.replace(/-----[^-]+-----/g, ''), 'base64')
    const wrap = (bytes: Buffer): string =>
      `-----BEGIN CERTIFICATE REQUEST-----\n${bytes.toString('base64')}\n-----END CERTIFICATE REQUEST-----`
    expect(await refusal(wrap(body))).toBe('taken')
    // After the length around all of it: a sequence of what is signed, with its own length in its second byte.
    const start = body.indexOf(Buffer.from('020100', 'hex')) - 2
    const signed = { start, end: start + 2 + (body[start + 1] ?? 0) }
    const change = fc.tuple(fc.nat({ max: body.length - 1 }), fc.integer({ min: 1, max: 255 }))
    await fc.assert(
      fc.asyncProperty(change, async ([at, mask]) => {
        const changed = Buffer.from(body)
        changed[at] = (changed[at] ?? 0) ^ mask
        // How what is signed is wrapped has forms that the reader takes as the same: none is of another key.
        const read = await readCertificateRequest(wrap(changed)).catch((error: unknown) => error)
        if (read instanceof CertificateRequestError) return
        const isSigned = at >= signed.start && at < signed.end
        expect([isSigned, read]).toMatchObject([false, { keyHash }])
      }),
      { numRuns: 300, examples: [[[signed.end, 0x80]], [[signed.end - 1, 1]], [[signed.start + 30, 1]]] },
    )
  })

  it('is refused, and never worse, when it is anything else', async () => {
    const { request } = await createCertificateRequest()
    const { cert } = await hostOf(authority)
    for (const pem of ['', cert, authority.key, `${request}\n${request}`, request.padEnd(9000, ' '), '{}']) {
      expect(await refusal(pem)).toContain('no certificate request')
    }
    // Whoever tried all ways to read these headers would never come back.
    expect(await refusal(`-----BEGIN CERTIFICATE REQUEST-----\na: b\n${' a: b\n'.repeat(1000)}!`)).toContain(
      'no certificate',
    )
    const noise = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes).toString('base64'))
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.string(), noise), async (text) => {
        const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${text}\n-----END CERTIFICATE REQUEST-----`
        expect(await refusal(pem)).toMatch(/^(That is no|A host has)/)
      }),
    )
  })
})

describe('the certificate of a host', () => {
  it('names the host alone, whatever its request asks for', async () => {
    const label = fc.stringMatching(/^[a-z0-9]{1,12}$/)
    const name = fc.oneof(fc.constant(CONTROL_PLANE_NAME), fc.constant(hostName(`host-${'9'.repeat(25)}`)), label)
    await fc.assert(
      fc.asyncProperty(name, fc.array(name, { minLength: 1, maxLength: 3 }), async (subject, names) => {
        const request = await greedyRequest(P256, subject, names)
        const read = await readCertificateRequest(request.toString('pem'))
        const issued = await issueToHost(authority, HOST, read, DAY_MS)
        const cert = new X509Certificate(issued.cert)
        expect(cert.subjectAltName).toBe(`DNS:${hostName(HOST)}`)
        expect([cert.subject, cert.ca]).toEqual([`CN=${hostName(HOST)}`, false])
        expect(cert.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1']) // what Node.js names so is the extended one: serverAuth
        expect(cert.verify(new X509Certificate(authority.cert).publicKey)).toBe(true)
        expect(issued.serial).toBe(cert.serialNumber.toLowerCase())
      }),
      { numRuns: 30 },
    )
  })

  it('is due for another one after two thirds of its life', async () => {
    const now = new Date('2030-01-01T00:00:00Z')
    const { cert, expiresAt } = await hostOf(authority, HOST, 9 * DAY_MS, now)
    expect(expiresAt).toEqual(new Date(now.getTime() + 9 * DAY_MS))
    expect(isDueForRenewal(cert, new Date(now.getTime() + 5.9 * DAY_MS))).toBe(false)
    expect(isDueForRenewal(cert, new Date(now.getTime() + 6.1 * DAY_MS))).toBe(true)
  })
})

describe('a call of a host', () => {
  it('is agreed on by both ends of one authority alone', async () => {
    const host = { ...(await hostOf(authority)), trusts: authority.cert }
    const caller = { ...(await issueToControlPlane(authority, DAY_MS)), trusts: [authority.cert] }
    expect(await call(host, caller)).toBe('agreed')

    const foreign = await createHostAuthority()
    const stranger = { ...(await issueToControlPlane(foreign, DAY_MS)), trusts: [authority.cert] }
    expect(await call(host, stranger)).toMatch(/^host: /)
    expect(await call(host, { trusts: [authority.cert] })).toMatch(/^host: ERR_SSL_PEER_DID_NOT_RETURN/)
    expect(await call(host, { ...caller, trusts: [foreign.cert] })).toMatch(/^caller: /)
  })

  it('is refused when another host answers, and when a host is who calls', async () => {
    const host = { ...(await hostOf(authority)), trusts: authority.cert }
    const caller = { ...(await issueToControlPlane(authority, DAY_MS)), trusts: [authority.cert] }
    const other = `host-${'1'.repeat(25)}`
    expect(await call(host, caller, hostName(other))).toBe('caller: ERR_TLS_CERT_ALTNAME_INVALID')
    const { cert, key } = await hostOf(authority, other)
    expect(await call(host, { cert, key, trusts: [authority.cert] })).toMatch(/^host: /)
    const answering = { ...(await issueToControlPlane(authority, DAY_MS)), trusts: authority.cert }
    expect(await call(answering, caller)).toMatch(/^caller: /)
  })

  it('is refused with a certificate that is over or revoked', async () => {
    const caller = { ...(await issueToControlPlane(authority, DAY_MS)), trusts: [authority.cert] }
    const past = new Date(Date.now() - 3 * DAY_MS)
    const over = { ...(await hostOf(authority, HOST, DAY_MS, past)), trusts: authority.cert }
    expect(await call(over, caller)).toBe('caller: CERT_HAS_EXPIRED')

    const host = { ...(await hostOf(authority)), trusts: authority.cert }
    const listOf = async (...serials: string[]): Promise<string[]> => [
      await createRevocationList(
        authority,
        serials.map((serial) => ({ serial, revokedAt: new Date() })),
        DAY_MS,
      ),
    ]
    expect(await call(host, { ...caller, lists: await listOf() })).toBe('agreed')
    expect(await call(host, { ...caller, lists: await listOf((await hostOf(authority)).serial) })).toBe('agreed')
    expect(await call(host, { ...caller, lists: await listOf(host.serial) })).toBe('caller: CERT_REVOKED')
    const ahead = await createRevocationList(authority, [], DAY_MS, new Date(Date.now() + 60_000))
    expect(await call(host, { ...caller, lists: [ahead] }), 'the clock was set back meanwhile').toBe('agreed')
  })

  it('is agreed on while one authority takes the place of another, with a list of each', async () => {
    const next = await createHostAuthority()
    const lists = [await createRevocationList(authority, [], DAY_MS), await createRevocationList(next, [], DAY_MS)]
    const trusts = [authority.cert, next.cert]
    // Hosts of before know the old one alone, so control planes go by it until nobody does.
    const caller = { ...(await issueToControlPlane(authority, DAY_MS)), trusts, lists }
    const before = { ...(await hostOf(authority)), trusts: authority.cert }
    const renewed = { ...(await hostOf(next)), trusts: `${authority.cert}\n${next.cert}` }
    expect([await call(before, caller), await call(renewed, caller)]).toEqual(['agreed', 'agreed'])

    const revoked = [{ serial: renewed.serial, revokedAt: new Date() }]
    const listed = [lists[0] ?? '', await createRevocationList(next, revoked, DAY_MS)]
    expect(await call(renewed, { ...caller, lists: listed })).toBe('caller: CERT_REVOKED')
    expect(await call(before, { ...caller, lists: listed })).toBe('agreed')
  })

  it('is not agreed on with what the authority says of any name elsewhere', async () => {
    const caller = { ...(await issueToControlPlane(authority, DAY_MS)), trusts: [authority.cert] }
    const forged = { ...(await issueHostCertificate(authority, 'example.com')), trusts: authority.cert }
    expect(await call(forged, caller, 'example.com')).toBe('caller: permitted subtree violation')
  })
})
