import 'reflect-metadata' // before the rest: classes of x509 register themselves with it
import { randomBytes, webcrypto } from 'node:crypto'
import { AsnConvert } from '@peculiar/asn1-schema'
import {
  GeneralName,
  GeneralSubtree,
  GeneralSubtrees,
  id_ce_nameConstraints,
  NameConstraints,
} from '@peculiar/asn1-x509'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  Extension,
  type JsonGeneralName,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'

const DAY_MS = 24 * 3600 * 1000
const AUTHORITY_DAYS = 3650
/** Short, because whoever serves one renews it by itself. */
const CERTIFICATE_DAYS = 90
const RENEW_BEFORE_DAYS = 30
/** Clocks of clients may be behind ours. */
const BACKDATED_MS = 3600 * 1000
const SERIAL_BYTES = 16
/** RFC 5280, ub-common-name: longer ones stand among the alternative names alone. */
const MAXIMUM_COMMON_NAME = 64
const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
/** A client on the same machine may go by these too; they name nobody else's machine. */
const LOOPBACK = [
  { range: '127.0.0.0/8', address: '127.0.0.1' },
  { range: '::1/128', address: '::1' },
] as const

cryptoProvider.set(webcrypto)

/** A certificate and its key, as PEM. */
export interface Credentials {
  readonly cert: string
  readonly key: string
}

/**
 * Makes an authority that can speak for these domains, what is below them, and the loopback addresses, for ten years: to trust it opens
 * nothing else (RFC 5280 §4.2.1.10, critical).
 * @param name for people who look at it
 * @param domains `undefined`: for every name. Whoever trusts that one trusts its key's owner with everything.
 */
export async function createAuthority(
  name: string,
  domains: readonly string[] | undefined,
  now = new Date(),
): Promise<Credentials> {
  const keys = await makeKeys()
  const cert = await X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [name] }],
    keys,
    signingAlgorithm: ALGORITHM,
    serialNumber: randomSerial(),
    ...validity(now, AUTHORITY_DAYS),
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(domains === undefined ? [] : [only(domains)]),
    ],
  })
  return { cert: cert.toString('pem'), key: await exportKey(keys.privateKey) }
}

/** Makes a server's certificate for these domains and every name one label below them; the chain is in `cert`. */
export async function issueCertificate(
  authority: Credentials,
  domains: readonly string[],
  now = new Date(),
): Promise<Credentials> {
  const names = domains.flatMap((domain) => [domain, `*.${domain}`])
  return await issue(authority, [...names.map(dnsName), ...LOOPBACK.map(({ address }) => ipName(address))], now)
}

/** Makes a server's certificate for one host; the chain is in `cert`. */
export async function issueHostCertificate(
  authority: Credentials,
  host: string,
  now = new Date(),
): Promise<Credentials> {
  return await issue(authority, [dnsName(host)], now)
}

const dnsName = (value: string): JsonGeneralName => ({ type: 'dns', value })
const ipName = (value: string): JsonGeneralName => ({ type: 'ip', value })

async function issue(authority: Credentials, names: JsonGeneralName[], now: Date): Promise<Credentials> {
  const issuer = new X509Certificate(authority.cert)
  const keys = await makeKeys()
  const cert = await X509CertificateGenerator.create({
    subject: [{ CN: [String(names[0]?.value ?? 'localhost').slice(0, MAXIMUM_COMMON_NAME)] }],
    issuer: issuer.subjectName,
    publicKey: keys.publicKey,
    signingKey: await importKey(authority.key),
    signingAlgorithm: ALGORITHM,
    serialNumber: randomSerial(),
    ...validity(now, CERTIFICATE_DAYS),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(names),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  })
  return { cert: `${cert.toString('pem')}\n${authority.cert}`, key: await exportKey(keys.privateKey) }
}

/** Whether it is time to make another in place of the first certificate of a chain: over, over within 30 days, or of a clock that was ahead. */
export function isSoonOver(cert: string, now = new Date()): boolean {
  const { notBefore, notAfter } = new X509Certificate(cert)
  return notBefore > now || notAfter.getTime() - now.getTime() < RENEW_BEFORE_DAYS * DAY_MS
}

async function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), PemConverter.PrivateKeyTag)
}

async function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  return await webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(pem), ALGORITHM, false, ['sign'])
}

function validity(now: Date, days: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(now.getTime() - BACKDATED_MS), notAfter: new Date(now.getTime() + days * DAY_MS) }
}

function randomSerial(): string {
  const bytes = randomBytes(SERIAL_BYTES)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40 // positive, and of the same length whatever came
  return bytes.toString('hex')
}

function only(domains: readonly string[]): Extension {
  const names = [
    ...domains.map((dNSName) => new GeneralName({ dNSName })),
    ...LOOPBACK.map(({ range }) => new GeneralName({ iPAddress: range })),
  ]
  const permittedSubtrees = new GeneralSubtrees(names.map((base) => new GeneralSubtree({ base })))
  return new Extension(id_ce_nameConstraints, true, AsnConvert.serialize(new NameConstraints({ permittedSubtrees })))
}
