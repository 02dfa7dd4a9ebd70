import { chmod, chown, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, removeUnfinished, requireFitting, writeFileAtomic } from '@wrenn/base'
import type { Credentials } from '@wrenn/certificates'

/** Of the folder, what is served. */
export const SERVED_FILE = 'served.pem'

const LOOK_EVERY_MS = 60_000
/** Whatever the umask: anybody may read the authority's certificate, and what is made in it is of its group from the first moment. */
const DIRECTORY_MODE = 0o2755

/** Where the certificate that is served comes from. */
export type CertificateSource =
  /** Files of the operator's, which somebody else renews. */
  | { readonly kind: 'given'; readonly certFile: string; readonly keyFile: string }
  /** Made here, by an authority of this platform. */
  | { readonly kind: 'local'; readonly domains: readonly string[] }

/** What is placed for the control plane. */
export interface CertificateFilesOptions {
  readonly source: CertificateSource
  /** Folder of the platform for it. */
  readonly dir: string
  /** Group of the control plane, which may read what it serves, and no other key. */
  readonly gid: number
  /** Told when a look at the source fails; what was placed before is served on. */
  readonly onProblem: (problem: string) => void
  /** @default 60 000 */
  readonly lookEveryMs?: number
}

/**
 * What the control plane serves, in a place where it may read it: a copy of the operator's files, kept up with those, or what was made here and is
 * made anew 30 days before it is over. Certificate and key are one file, so that there is never half of a pair.
 */
export class CertificateFiles implements Disposable {
  /** PEM: the chain, then the key. */
  readonly file: string
  /** Of the authority of this platform, for clients to trust; `undefined` when the certificate was given. */
  readonly authorityFile: string | undefined
  readonly #options: CertificateFilesOptions
  #looking: NodeJS.Timeout | undefined
  #placed: string | undefined

  private constructor(options: CertificateFilesOptions) {
    const { dir, source } = options
    this.#options = options
    this.file = join(dir, SERVED_FILE)
    this.authorityFile = source.kind === 'local' ? join(folderOf(dir, source.domains), 'ca.pem') : undefined
  }

  /** @throws AppError `invalid_config` when files of the operator's cannot be used, and none were placed before */
  static async place(options: CertificateFilesOptions): Promise<CertificateFiles> {
    const files = new CertificateFiles(options)
    const { dir, gid, onProblem, lookEveryMs = LOOK_EVERY_MS } = options
    await mkdir(dir, { recursive: true })
    await chown(dir, 0, gid)
    await chmod(dir, DIRECTORY_MODE)
    await removeUnfinished(dir)
    await files.#look().catch(async (error: unknown) => {
      if ((await readIfThere(files.file)) === undefined) throw error
      onProblem(`${errorText(error)} What was served before is served on.`)
    })
    const look = () => void files.#look().catch((error: unknown) => onProblem(errorText(error)))
    files.#looking = setInterval(look, lookEveryMs).unref()
    return files
  }

  async #look(): Promise<void> {
    const { source, dir } = this.#options
    const { cert, key } = source.kind === 'given' ? await given(source) : await local(dir, source.domains)
    const wanted = `${cert.trimEnd()}\n${key.trimEnd()}\n`
    if (wanted === this.#placed) return
    await writeFileAtomic(this.file, wanted, 0o640)
    this.#placed = wanted
  }

  [Symbol.dispose](): void {
    clearInterval(this.#looking)
  }
}

async function given({ certFile, keyFile }: { certFile: string; keyFile: string }): Promise<Credentials> {
  const pair = { cert: await readGiven('--tls-cert', certFile), key: await readGiven('--tls-key', keyFile) }
  // Whoever renews them puts one in its place after the other.
  requireFitting(pair, { cert: '--tls-cert', key: '--tls-key' })
  return pair
}

async function readGiven(option: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw new AppError('invalid_config', `${path} cannot be read: ${errorText(cause)}. ${option} names a PEM file.`)
  }
}

/** One authority for each set of domains, because it can speak for no others. */
function folderOf(dir: string, domains: readonly string[]): string {
  return join(dir, domains.join('+'))
}

/** What was made before, as long as it holds. */
async function local(dir: string, domains: readonly string[]): Promise<Credentials> {
  // Only a platform that serves TLS pays for loading it.
  const { createAuthority, isSoonOver, issueCertificate } = await import('@wrenn/certificates')
  const folder = folderOf(dir, domains)
  await mkdir(folder, { recursive: true })
  await chmod(folder, DIRECTORY_MODE)
  await removeUnfinished(folder)
  const kept = async (name: string, isGood: (cert: string) => boolean, make: () => Promise<Credentials>) => {
    const [certFile, keyFile] = [join(folder, `${name}.pem`), join(folder, `${name}.key`)]
    const [cert, key] = [await readIfThere(certFile), await readIfThere(keyFile)]
    if (cert !== undefined && key !== undefined && isGood(cert)) return { cert, key }
    const made = await make()
    await writeFileAtomic(keyFile, made.key, 0o600)
    await writeFileAtomic(certFile, made.cert, 0o644)
    return made
  }
  const name = `Wrenn at ${domains.join(', ')}`
  const authority = await kept(
    'ca',
    (cert) => !isSoonOver(cert),
    () => createAuthority(name, domains),
  )
  const isOurs = (cert: string): boolean => cert.endsWith(authority.cert) && !isSoonOver(cert)
  return await kept('server', isOurs, () => issueCertificate(authority, domains))
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
