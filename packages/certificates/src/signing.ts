import { randomBytes, webcrypto } from 'node:crypto'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  type ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type JsonGeneralName,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  type PublicKey,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'

/** Of all keys and signatures here. */
export const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
/** Clocks of peers may be behind ours, and ours may be set back. */
const BACKDATED_MS = 3600 * 1000
const SERIAL_BYTES = 16
/** RFC 5280, ub-common-name: longer ones stand among the alternative names alone. */
const MAXIMUM_COMMON_NAME = 64

cryptoProvider.set(webcrypto)

/** A certificate and its key, as PEM. */
export interface Credentials {
  readonly cert: string
  readonly key: string
}

/** What a certificate says of whoever has its key. */
export interface Subject {
  readonly publicKey: webcrypto.CryptoKey | PublicKey
  /** The first one is its common name too. */
  readonly names: JsonGeneralName[]
  readonly usage: ExtendedKeyUsage
  readonly lifetimeMs: number
}

/** Signs a certificate that is good for one use, and for no authority. */
export async function sign(authority: Credentials, subject: Subject, now: Date): Promise<X509Certificate> {
  const issuer = new X509Certificate(authority.cert)
  const { publicKey, names, usage, lifetimeMs } = subject
  return await X509CertificateGenerator.create({
    subject: [{ CN: [String(names[0]?.value ?? 'localhost').slice(0, MAXIMUM_COMMON_NAME)] }],
    issuer: issuer.subjectName,
    publicKey,
    signingKey: await importKey(authority.key),
    signingAlgorithm: ALGORITHM,
    serialNumber: randomSerial(),
    ...validity(now, lifetimeMs),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([usage]),
      new SubjectAlternativeNameExtension(names),
      await SubjectKeyIdentifierExtension.create(publicKey),
      await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  })
}

export async function makeKeys(): Promise<webcrypto.CryptoKeyPair> {
  return await webcrypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
}

export async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  return PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), PemConverter.PrivateKeyTag)
}

export async function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  return await webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(pem), ALGORITHM, false, ['sign'])
}

export function validity(now: Date, lifetimeMs: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(now.getTime() - BACKDATED_MS), notAfter: new Date(now.getTime() + lifetimeMs) }
}

export function randomSerial(): string {
  const bytes = randomBytes(SERIAL_BYTES)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40 // positive, and of the same length whatever came
  return bytes.toString('hex')
}
