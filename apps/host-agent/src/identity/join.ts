import { mkdir, readdir, readFile, statfs } from 'node:fs/promises'
import { connect } from 'node:net'
import { arch, availableParallelism, totalmem } from 'node:os'
import { join } from 'node:path'
import { AppError, errorText, isErrno, requireFitting } from '@wrenn/base'
import { createCertificateRequest } from '@wrenn/certificates'
import { parseHostAddress } from '@wrenn/protocol'
import { readHostId, writeHostId } from './host-id.js'
import {
  forgetJoining,
  type HostIdentity,
  type PendingKey,
  readJoining,
  writeIdentity,
  writeJoining,
} from './identity-file.js'
import { askForCredentials, platformUrl } from './platform-call.js'

/** Of host agents that listen on a network. */
const DEFAULT_PORT = 7443
const CONNECT_WITHIN_MS = 10_000
const TOKEN = /^wrj_([0-9a-z]{25})_[0-9A-Za-z_-]{43}$/
const GIB = 2 ** 30
/** Made at the first start of a platform, whatever its database. */
const PLATFORM_FILES: ReadonlySet<string> = new Set(['encryption-key', 'postgres'])

/** How a machine becomes a host. */
export interface JoinOptions {
  /** The platform's directory on this machine. */
  readonly dir: string
  readonly url: string
  readonly token: string
  /** `name:port` where control planes reach this machine. @default the address by which it reaches the platform, port 7443 */
  readonly address?: string | undefined
  /** `address:port` to listen on. @default all addresses, the port of `address` */
  readonly listen?: string | undefined
  /** A PEM file of authorities that the platform's certificate may be of. @default the public ones */
  readonly caFile?: string | undefined
}

/**
 * Makes a key, which stays here, gets a certificate for it by the token, and keeps both. Tried again with the same token it asks for the
 * same key.
 * @throws AppError what the platform answers; `conflict` when this machine has capsules as another host; `invalid_request`, `connection_failed`
 */
export async function joinPlatform(options: JoinOptions): Promise<HostIdentity & { readonly address: string }> {
  const { dir, token, caFile } = options
  const url = platformUrl(options.url)
  const hostId = hostIdOf(token)
  const urlAuthorities = caFile === undefined ? undefined : await readCa(caFile)
  const address = options.address ?? `${await ownAddressTowards(url)}:${DEFAULT_PORT}`
  const port = portOf('--address', address)
  const listen = options.listen ?? `${address.startsWith('[') ? '[::]' : '0.0.0.0'}:${port}`
  portOf('--listen', listen) // before the token is used: without another one it could not be changed
  await mkdir(dir, { recursive: true, mode: 0o755 })
  await requireFree(dir, hostId)
  const { key, request } = (await readJoining(dir, token)) ?? (await beginJoining(dir, token))
  const body = { token, address, csr: request, ...(await factsOf(dir)) }
  const answer = await askForCredentials({ url, urlAuthorities }, '/v1/hosts/register', body)
  if (answer.host.id !== hostId)
    throw new AppError('conflict', `The platform takes this machine for ${answer.host.id}.`)
  const identity: HostIdentity = {
    ...{ version: 1, hostId, url, listen, key, certificate: answer.cert_pem, authorities: answer.ca_cert_pem },
    ...{ refreshToken: answer.refresh_token },
    ...(urlAuthorities === undefined ? {} : { urlAuthorities }),
  }
  requireFitting({ cert: identity.certificate, key }, { cert: "The platform's answer", key: 'the key of this machine' })
  await writeHostId(dir, hostId)
  await writeIdentity(dir, identity)
  await forgetJoining(dir)
  return { ...identity, address }
}

function hostIdOf(token: string): string {
  const [, id] = TOKEN.exec(token) ?? []
  if (id !== undefined) return `host-${id}`
  throw new AppError('invalid_request', 'That is no token of a host: `wrenn host token`, on the platform, makes one.')
}

function portOf(option: string, address: string): number {
  const parsed = parseHostAddress(address)
  if (parsed !== undefined) return parsed.port
  throw new AppError(
    'invalid_request',
    `${option} must be an address and a port, such as 10.1.2.3:7443 or [2001:db8::1]:7443.`,
  )
}

async function beginJoining(dir: string, token: string): Promise<PendingKey> {
  const made = await createCertificateRequest()
  await writeJoining(dir, token, made)
  return made
}

/** Records and saved states are of the host that made them, and a platform's directory is the platform's. */
async function requireFree(dir: string, hostId: string): Promise<void> {
  const ofPlatform = (await ifThere(readdir(dir)))?.find((name) => PLATFORM_FILES.has(name))
  if (ofPlatform !== undefined) {
    throw new AppError('conflict', `${dir} is the directory of a platform, by ${ofPlatform} in it: give another --dir.`)
  }
  const before = await readHostId(dir)
  if (before === undefined || before === hostId) return
  const records = (await ifThere(readdir(join(dir, 'journal')))) ?? []
  if (!records.some((name) => name.endsWith('.json'))) return
  const message = `${dir} has capsules of ${before}, which this token is not for: end them first, or give another --dir.`
  throw new AppError('conflict', message)
}

async function ifThere<T>(read: Promise<T>): Promise<T | undefined> {
  return await read.catch((error: unknown) => {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  })
}

async function readCa(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch((error: unknown) => {
    throw new AppError('invalid_request', `--ca cannot be read: ${errorText(error)}.`)
  })
}

async function factsOf(dir: string) {
  const { blocks, bsize } = await statfs(dir)
  return {
    arch: arch(),
    cpu_cores: availableParallelism(),
    memory_mb: Math.floor(totalmem() / 2 ** 20),
    disk_gb: Math.floor((blocks * bsize) / GIB),
  }
}

/** The address of this machine that its packets to the platform come from. */
async function ownAddressTowards(url: string): Promise<string> {
  const { hostname, port, protocol } = new URL(url)
  const socket = connect({
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port || (protocol === 'https:' ? 443 : 80)),
    signal: AbortSignal.timeout(CONNECT_WITHIN_MS),
  })
  try {
    return await new Promise<string>((resolve, reject) => {
      socket.once('error', reject)
      socket.once('connect', () => {
        const own = socket.localAddress ?? '127.0.0.1'
        resolve(own.includes(':') ? `[${own}]` : own)
      })
    })
  } catch (cause) {
    throw new AppError('connection_failed', `The platform at ${url} does not answer: ${errorText(cause)}.`, { cause })
  } finally {
    socket.destroy()
  }
}
