import { chown, mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, writeFileAtomic } from '@wrenn/base'
import type { Credentials } from '@wrenn/certificates'

const LOOK_EVERY_MS = 60_000

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
  /** Group of the control plane, which may read the key that it serves, and no other. */
  readonly gid: number
  /** Told when a look at the source fails; what was placed before is served on. */
  readonly onProblem: (problem: string) => void
  /** @default 60 000 */
  readonly lookEveryMs?: number
}

/**
 * The certificate and key that the control plane serves, in a place where it may read them: copies of the operator's, kept up with those,
 * or ones made here and made anew 30 days before they are over.
 */
export class CertificateFiles implements Disposable {
  readonly certFile: string
  readonly keyFile: string
  /** Of the authority of this platform, for clients to trust; `undefined` when the certificate was given. */
  readonly authorityFile: string | undefined
  readonly #options: CertificateFilesOptions
  #looking: NodeJS.Timeout | undefined
  #placed: Credentials | undefined

  private constructor(options: CertificateFilesOptions) {
    const { dir, source } = options
    this.#options = options
    this.certFile = join(dir, 'cert.pem')
    this.keyFile = join(dir, 'key.pem')
    this.authorityFile = source.kind === 'local' ? join(folderOf(dir, source.domains), 'ca.pem') : undefined
  }

  /** @throws AppError `invalid_config` when files of the operator's cannot be read */
  static async place(options: CertificateFilesOptions): Promise<CertificateFiles> {
    const files = new CertificateFiles(options)
    await mkdir(options.dir, { recursive: true, mode: 0o755 })
    await files.#look()
    const look = () => void files.#look().catch((error: unknown) => options.onProblem(errorText(error)))
    files.#looking = setInterval(look, options.lookEveryMs ?? LOOK_EVERY_MS).unref()
    return files
  }

  async #look(): Promise<void> {
    const { source, dir } = this.#options
    const wanted = source.kind === 'given' ? await given(source) : await local(dir, source.domains)
    if (wanted.cert === this.#placed?.cert && wanted.key === this.#placed.key) return
    await writeFileAtomic(this.keyFile, wanted.key, 0o640)
    await chown(this.keyFile, 0, this.#options.gid)
    await writeFileAtomic(this.certFile, wanted.cert, 0o644)
    this.#placed = wanted
  }

  [Symbol.dispose](): void {
    clearInterval(this.#looking)
  }
}

async function given({ certFile, keyFile }: { certFile: string; keyFile: string }): Promise<Credentials> {
  return { cert: await readGiven('--tls-cert', certFile), key: await readGiven('--tls-key', keyFile) }
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
  await mkdir(folder, { recursive: true, mode: 0o755 })
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
    () => true,
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
