import { AsnConvert } from '@peculiar/asn1-schema'
import {
  GeneralName,
  GeneralSubtree,
  GeneralSubtrees,
  id_ce_nameConstraints,
  NameConstraints,
} from '@peculiar/asn1-x509'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  Extension,
  type JsonGeneralName,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { ALGORITHM, type Credentials, exportKey, makeKeys, randomSerial, sign, validity } from './signing.js'

const DAY_MS = 24 * 3600 * 1000
const AUTHORITY_DAYS = 3650
/** Short, because whoever serves one renews it by itself. */
const CERTIFICATE_DAYS = 90
const RENEW_BEFORE_DAYS = 30
/** A client on the same machine may go by these too; they name nobody else's machine. */
const LOOPBACK = [
  { range: '127.0.0.0/8', address: '127.0.0.1' },
  { range: '::1/128', address: '::1' },
] as const

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
    ...validity(now, AUTHORITY_DAYS * DAY_MS),
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
  const keys = await makeKeys()
  const lifetimeMs = CERTIFICATE_DAYS * DAY_MS
  const subject = { publicKey: keys.publicKey, names, usage: ExtendedKeyUsage.serverAuth, lifetimeMs }
  const cert = await sign(authority, subject, now)
  return { cert: `${cert.toString('pem')}\n${authority.cert}`, key: await exportKey(keys.privateKey) }
}

/** Whether it is time to make another in place of the first certificate of a chain: over, over within 30 days, or of a clock that was ahead. */
export function isSoonOver(cert: string, now = new Date()): boolean {
  const { notBefore, notAfter } = new X509Certificate(cert)
  return notBefore > now || notAfter.getTime() - now.getTime() < RENEW_BEFORE_DAYS * DAY_MS
}

function only(domains: readonly string[]): Extension {
  const names = [
    ...domains.map((dNSName) => new GeneralName({ dNSName })),
    ...LOOPBACK.map(({ range }) => new GeneralName({ iPAddress: range })),
  ]
  const permittedSubtrees = new GeneralSubtrees(names.map((base) => new GeneralSubtree({ base })))
  return new Extension(id_ce_nameConstraints, true, AsnConvert.serialize(new NameConstraints({ permittedSubtrees })))
}
