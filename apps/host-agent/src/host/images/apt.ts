import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText } from '@wrenn/base'
import { DEBIAN_KEYRING, readHostSources, renderSources } from './apt-sources.js'
import { missingPackage, runCommand } from './command.js'
import type { ImageStoreOptions } from './progress.js'
import { exists, sha256File } from './store.js'

const UPDATE_TIMEOUT_MS = 300_000
const DOWNLOAD_TIMEOUT_MS = 600_000

/** One version of a package as the archive offers it. */
interface Archive {
  readonly fileName: string
  readonly sha256: string
}

/**
 * apt with lists and downloads of its own below `<aptDir>/<suite>`. The host's sources, mirrors, proxies, certificates and
 * credentials count; its lists, pins and hooks do not, and nothing of it is changed. Only for who holds the build lease.
 */
export class Apt {
  readonly suite: string
  /** Deb822 text of where packages come from, also for the guest. */
  readonly sources: string
  readonly #root: string
  readonly #signal: AbortSignal | undefined

  private constructor(suite: string, root: string, sources: string, signal: AbortSignal | undefined) {
    this.suite = suite
    this.#root = root
    this.sources = sources
    this.#signal = signal
  }

  /**
   * Opens the state of one Debian release and brings its package lists up to date. Where that fails but there are lists of an
   * earlier time, those are used and the log says why: what was downloaded once can be built from without a network.
   * @throws AppError `image_build_failed` when there are no lists and none can be had
   */
  static async open(
    suite: string,
    options: Pick<ImageStoreOptions, 'aptDir' | 'logger' | 'signal' | 'onProgress'>,
  ): Promise<Apt> {
    if (!(await exists(DEBIAN_KEYRING))) throw missingPackage(DEBIAN_KEYRING, 'debian-archive-keyring')
    const root = join(options.aptDir, suite)
    const sources = renderSources(await readHostSources(suite))
    const apt = new Apt(suite, root, sources, options.signal)
    await apt.#writeState()
    options.onProgress?.({ step: 'lists', detail: `Reading the package lists of Debian ${suite}` })
    await apt.#update(options.logger)
    return apt
  }

  get listsDir(): string {
    return join(this.#root, 'state', 'lists')
  }

  get archivesDir(): string {
    return join(this.#root, 'cache', 'archives')
  }

  get #configPath(): string {
    return join(this.#root, 'apt.conf')
  }

  /**
   * Downloads a package's newest version, unless it is there already.
   * @returns path of the `.deb`
   * @throws AppError `image_build_failed` when the archive has no such package or cannot be reached
   */
  async download(name: string): Promise<string> {
    const archive = await this.#find(name)
    const path = join(this.archivesDir, archive.fileName)
    if ((await exists(path)) && (await sha256File(path)) === archive.sha256) return path
    await this.#get(['download', name], { cwd: this.archivesDir, timeoutMs: DOWNLOAD_TIMEOUT_MS })
    if (await exists(path)) return path
    throw new AppError('image_build_failed', `apt-get downloaded no ${archive.fileName} for ${name}.`)
  }

  /**
   * Downloads everything that a new system with `packages` needs, into `archivesDir`.
   * @param packages names, or apt's patterns
   */
  async downloadSystem(packages: readonly string[]): Promise<void> {
    const options = ['-y', '--no-install-recommends', '--download-only']
    await this.#get([...options, 'install', ...packages], { timeoutMs: DOWNLOAD_TIMEOUT_MS })
  }

  /** What `name` depends on, names only; `undefined` when the archive has no such package. */
  async dependencies(name: string): Promise<readonly string[] | undefined> {
    const { stdout } = await this.#run('apt-cache', ['show', '--no-all-versions', name]).catch((error: unknown) => {
      if (AppError.is(error, 'image_build_failed')) return { stdout: Buffer.alloc(0) } // unknown to apt
      throw error
    })
    const stanza = stdout.toString()
    if (!/^Package: /m.test(stanza)) return undefined
    const depends = /^Depends: (.*)$/m.exec(stanza)?.[1] ?? ''
    return depends.split(/[,|]/).flatMap((one) => /^\s*([a-z0-9][a-z0-9.+-]+)/.exec(one)?.[1] ?? [])
  }

  async #find(name: string): Promise<Archive> {
    const { stdout } = await this.#get(['download', '--print-uris', name], { cwd: this.#root })
    const [, fileName, sha256] = /^'[^']*' (\S+) \d+ SHA256:([0-9a-f]{64})$/m.exec(stdout.toString()) ?? []
    if (fileName !== undefined && sha256 !== undefined) return { fileName, sha256 }
    throw new AppError('image_build_failed', `apt knows no archive for ${name} in Debian ${this.suite}.`)
  }

  async #writeState(): Promise<void> {
    for (const folder of [join(this.listsDir, 'partial'), join(this.archivesDir, 'partial'), join(this.#root, 'log')])
      await mkdir(folder, { recursive: true })
    await writeFile(join(this.#root, 'debian.sources'), this.sources)
    await writeFile(join(this.#root, 'state', 'status'), '')
    await writeFile(this.#configPath, configuration(this.#root))
  }

  async #update(logger: ImageStoreOptions['logger']): Promise<void> {
    try {
      await this.#get(['update'], { timeoutMs: UPDATE_TIMEOUT_MS })
      await this.#get(['autoclean'])
    } catch (error) {
      if (!AppError.is(error, 'image_build_failed', 'timeout') || !(await this.#hasLists())) throw error
      logger.warn({ suite: this.suite, reason: errorText(error) }, 'images.package_lists_old')
    }
  }

  async #hasLists(): Promise<boolean> {
    return (await readdir(this.listsDir)).some(
      (name) => name.includes(`_dists_${this.suite}_`) && name.includes('_Packages'),
    )
  }

  async #get(args: readonly string[], options: { cwd?: string; timeoutMs?: number } = {}) {
    return await this.#run('apt-get', ['-q', ...args], options)
  }

  async #run(tool: string, args: readonly string[], options: { cwd?: string; timeoutMs?: number } = {}) {
    const common = { signal: this.#signal, debianPackage: 'apt' }
    return await runCommand(tool, ['-c', this.#configPath, ...args], { ...common, ...options })
  }
}

/**
 * Read after the host's own configuration, whose proxies and credentials stay.
 * @see apt.conf(5)
 */
function configuration(root: string): string {
  const path = (...parts: readonly string[]): string => JSON.stringify(join(root, ...parts))
  return [
    `Dir::State ${path('state')};`,
    `Dir::State::lists ${path('state', 'lists')};`,
    `Dir::State::status ${path('state', 'status')};`,
    `Dir::Cache ${path('cache')};`,
    `Dir::Cache::archives ${path('cache', 'archives')};`,
    // Container images often switch these off, and then each call parses all lists again.
    'Dir::Cache::pkgcache "pkgcache.bin";',
    'Dir::Cache::srcpkgcache "srcpkgcache.bin";',
    `Dir::Log ${path('log')};`,
    `Dir::Etc::sourcelist ${path('debian.sources')};`,
    'Dir::Etc::sourceparts "/dev/null";',
    'Dir::Etc::preferences "/dev/null";',
    'Dir::Etc::preferencesparts "/dev/null";',
    '#clear APT::Update;',
    '#clear APT::Default-Release;',
    '#clear APT::Architectures;',
    'APT::Architecture "amd64";',
    'APT::Architectures { "amd64"; };',
    // The sandbox user may not be able to enter the directory; what is fetched is signed.
    'APT::Sandbox::User "root";',
    'APT::Update::Error-Mode "any";',
    'Acquire::GzipIndexes "false";',
    'Acquire::Languages "none";',
    'Acquire::Retries "2";',
    '',
  ].join('\n')
}
