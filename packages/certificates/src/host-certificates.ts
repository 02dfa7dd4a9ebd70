import { createHash, randomBytes, webcrypto } from 'node:crypto'
import {
  AuthorityKeyIdentifierExtension,
  ExtendedKeyUsage,
  PemConverter,
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  type PublicKey,
  X509Certificate,
  X509CrlGenerator,
} from '@peculiar/x509'
import { createAuthority } from './authority.js'
import { ALGORITHM, type Credentials, exportKey, importKey, makeKeys, sign, validity } from './signing.js'

/** Kept free of other use by ICANN; whoever is named below it is found by an address of its own, never by this name. */
const DOMAIN = 'wrenn.internal'
/** What the certificate of a control plane is for. */
export const CONTROL_PLANE_NAME = `control-plane.${DOMAIN}`
/** Far above what a request for a key of ours takes. */
const MAX_REQUEST_CHARS = 8192
/**
 * One block and nothing beside it. x509's own reader tries all ways in which lines may be headers or go on with one: 26 lines keep it busy for
 * half a second, and each one more for twice as long.
 */
const REQUEST = /^\s*-----BEGIN CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE REQUEST-----\s*$/
/** What Node.js and OpenSSL call it; x509 calls it `CRL`. */
const REVOCATION_TAG = 'X509 CRL'

/** A request for a certificate that is none, or for a key that gets none; the message says which. */
export class CertificateRequestError extends Error {
  override readonly name = 'CertificateRequestError'
}

/** A request whose sender has the key: nothing else of what it says counts. */
export interface CertificateRequest {
  readonly publicKey: PublicKey
  /** SHA-256 of the key, hexadecimal. */
  readonly keyHash: string
}

/** A certificate, and what to remember of it. */
export interface IssuedCertificate {
  readonly cert: string
  /** Hexadecimal, in lower case. */
  readonly serial: string
  readonly expiresAt: Date
}

/** Name that the certificate of a host is for, and that whoever calls the host asks for. */
export function hostName(hostId: string): string {
  return `${hostId}.hosts.${DOMAIN}`
}

/** An authority for hosts and control planes, which can speak for nothing that has a name elsewhere. */
export async function createHostAuthority(now = new Date()): Promise<Credentials & { readonly serial: string }> {
  // While one takes another's place there are two, which are told apart by their names.
  const made = await createAuthority(`Wrenn hosts ${randomBytes(4).toString('hex')}`, [DOMAIN], now)
  return { ...made, serial: new X509Certificate(made.cert).serialNumber }
}

/** Makes a key, and a request for a certificate for it: the key stays with who asked. */
export async function createCertificateRequest(): Promise<{ readonly key: string; readonly request: string }> {
  const keys = await makeKeys()
  const request = await Pkcs10CertificateRequestGenerator.create({ name: '', keys, signingAlgorithm: ALGORITHM })
  return { key: await exportKey(keys.privateKey), request: request.toString('pem') }
}

/**
 * Reads a request from outside. Names and extensions that it asks for are not read at all.
 * @throws CertificateRequestError
 */
export async function readCertificateRequest(pem: string): Promise<CertificateRequest> {
  const request = parseRequest(pem)
  let isSigned: boolean
  try {
    const { publicKey, signatureAlgorithm } = request
    if (!isOurs(publicKey.algorithm) || !isOurs({ ...publicKey.algorithm, ...signatureAlgorithm })) throw wrongKey()
    isSigned = await request.verify(webcrypto)
  } catch (error) {
    if (error instanceof CertificateRequestError) throw error
    throw wrongKey(error) // a curve that nobody knows, or a point that is not on it
  }
  if (!isSigned) throw new CertificateRequestError('The certificate request is not signed by the key that it is for.')
  const { publicKey } = request
  return { publicKey, keyHash: createHash('sha256').update(Buffer.from(publicKey.rawData)).digest('hex') }
}

/** The certificate of a host, for its name alone, to be called by and to call nobody with. */
export async function issueToHost(
  authority: Credentials,
  hostId: string,
  { publicKey }: CertificateRequest,
  lifetimeMs: number,
  now = new Date(),
): Promise<IssuedCertificate> {
  const names = [{ type: 'dns' as const, value: hostName(hostId) }]
  const cert = await sign(authority, { publicKey, names, usage: ExtendedKeyUsage.serverAuth, lifetimeMs }, now)
  return { cert: cert.toString('pem'), serial: cert.serialNumber, expiresAt: cert.notAfter }
}

/** What a control plane calls hosts with; the key need never be stored. */
export async function issueToControlPlane(
  authority: Credentials,
  lifetimeMs: number,
  now = new Date(),
): Promise<Credentials> {
  const keys = await makeKeys()
  const names = [{ type: 'dns' as const, value: CONTROL_PLANE_NAME }]
  const subject = { publicKey: keys.publicKey, names, usage: ExtendedKeyUsage.clientAuth, lifetimeMs }
  const cert = await sign(authority, subject, now)
  return { cert: cert.toString('pem'), key: await exportKey(keys.privateKey) }
}

/** A certificate that no longer counts. */
export interface Revocation {
  readonly serial: string
  readonly revokedAt: Date
}

/**
 * The list of an authority's certificates that no longer count, as PEM. Whoever checks by lists needs one of each authority that it trusts,
 * empty ones too, and takes none that is over: make it anew in time.
 */
export async function createRevocationList(
  authority: Credentials,
  revoked: readonly Revocation[],
  lifetimeMs: number,
  now = new Date(),
): Promise<string> {
  const issuer = new X509Certificate(authority.cert)
  const { notBefore, notAfter } = validity(now, lifetimeMs)
  const list = await X509CrlGenerator.create({
    issuer: issuer.subjectName,
    thisUpdate: issuer.notBefore > notBefore ? issuer.notBefore : notBefore,
    nextUpdate: notAfter,
    entries: revoked.map(({ serial, revokedAt }) => ({ serialNumber: serial, revocationDate: revokedAt })),
    signingAlgorithm: ALGORITHM,
    signingKey: await importKey(authority.key),
    extensions: [await AuthorityKeyIdentifierExtension.create(issuer.publicKey)],
  })
  return PemConverter.encode(list.rawData, REVOCATION_TAG)
}

/** Whether two thirds of a certificate's life are over: time for another one, while there is still time to try again. */
export function isDueForRenewal(cert: string, now = new Date()): boolean {
  const { notBefore, notAfter } = new X509Certificate(cert)
  const lifeMs = notAfter.getTime() - notBefore.getTime()
  return now.getTime() >= notBefore.getTime() + (lifeMs * 2) / 3
}

function parseRequest(pem: string): Pkcs10CertificateRequest {
  if (pem.length > MAX_REQUEST_CHARS) throw noRequest()
  try {
    const [, base64] = REQUEST.exec(pem) ?? []
    if (base64 === undefined) throw noRequest()
    return new Pkcs10CertificateRequest(Buffer.from(base64, 'base64'))
  } catch (error) {
    throw error instanceof CertificateRequestError ? error : noRequest(error)
  }
}

function isOurs(algorithm: { readonly name: string; readonly namedCurve?: unknown; readonly hash?: unknown }): boolean {
  const { name, namedCurve, hash } = algorithm
  const isSameHash = hash === undefined || nameOf(hash) === ALGORITHM.hash
  return name === ALGORITHM.name && namedCurve === ALGORITHM.namedCurve && isSameHash
}

function nameOf(value: unknown): unknown {
  return typeof value === 'object' && value !== null && 'name' in value ? value.name : undefined
}

function noRequest(cause?: unknown): CertificateRequestError {
  return new CertificateRequestError('That is no certificate request in the form of PEM (PKCS #10).', { cause })
}

function wrongKey(cause?: unknown): CertificateRequestError {
  return new CertificateRequestError('A host has a key on the curve P-256, and signs with SHA-256 (ECDSA).', { cause })
}
