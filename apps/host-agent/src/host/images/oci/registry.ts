import { chmod, chown, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText } from '@wrenn/base'
import { formatImageReference, type ImageReference } from '@wrenn/protocol'
import { runForResult } from '../../exec.js'
import { Door } from './door.js'
import { MANIFEST_BYTES } from './manifest.js'
import type { RegistryRules } from './rules.js'
import { sandboxed } from './sandbox.js'
import { type ImageLimits, limitSaid, withinLimits } from './unpack.js'

/** Of one question; a copy has the time of the whole fetch. */
const ASK_TIMEOUT_MS = 120_000
const PROGRESS_EVERY_MS = 2_000
const RETRIES = 2
const STDERR_BYTES = 64 * 1024
/** Of each try, beside layers: a manifest, a config, what token services say, and TLS. */
const TALK_BYTES = 16 * 2 ** 20
/** Of what layers take on the wire, with TLS' records. */
const WIRE = 1.05

/** Who asks a registry; it goes no further than there. */
export interface RegistryLogin {
  readonly username: string
  readonly password: string
}

/** What fetches need of this host. */
export interface RegistryTools {
  readonly rules: RegistryRules
  /** The built `fetcher.ts`, and the Node.js that runs it. */
  readonly fetcher: readonly [string, string]
  /** Whom skopeo runs as; nobody else of this host. */
  readonly uid: number
}

interface Asked {
  readonly reference: ImageReference
  readonly login: RegistryLogin | undefined
  readonly scratchDir: string
  readonly signal: AbortSignal
}

/** What a copy writes, and how long it may. */
interface CopyOptions {
  /** As the manifest says. */
  readonly layerBytes: number
  readonly limits: ImageLimits
  readonly timeoutMs: number
  readonly onBytes: (received: number) => void
}

interface RunWish {
  readonly signal: AbortSignal
  readonly timeoutMs: number
  /** Of all that comes in, of one try. */
  readonly tryBytes: number
  readonly fileBytes: number
  readonly folder?: string
  readonly onBytes?: (received: number) => void
}

/** Speaks with one registry about one image, by skopeo in a sandbox whose only way out is the {@link Door}. */
export class Registry {
  readonly #tools: RegistryTools
  readonly #asked: Asked

  constructor(tools: RegistryTools, asked: Asked) {
    this.#tools = tools
    this.#asked = asked
  }

  /** The manifest, or the index of manifests, that the reference means now; byte for byte. */
  async manifest(digest?: string): Promise<string> {
    const tries = ['--retry-times', String(RETRIES)]
    const words = ['inspect', '--raw', ...tries, ...this.#tls('--tls-verify'), this.#source(digest)]
    const { signal } = this.#asked
    const talk = { tryBytes: TALK_BYTES, fileBytes: TALK_BYTES }
    return await this.#run(words, { signal, timeoutMs: ASK_TIMEOUT_MS, ...talk })
  }

  /** Copies it as an OCI layout, its image called `image`, into `folder`: packed anew it may be larger than in the registry. */
  async copy(digest: string, folder: string, { layerBytes, limits, timeoutMs, onBytes }: CopyOptions): Promise<void> {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await chown(folder, this.#tools.uid, this.#tools.uid)
    const words = [
      ...['--insecure-policy', '--tmpdir', '/work', 'copy', '--quiet', '--retry-times', String(RETRIES)],
      // umoci 0.4.7 takes layers of gzip alone.
      ...['--dest-compress-format', 'gzip', ...this.#tls('--src-tls-verify')],
      ...[this.#source(digest), 'oci:/work/layout:image'],
    ]
    const wish = { timeoutMs, tryBytes: layerBytes * WIRE + TALK_BYTES, fileBytes: limits.maxBytes, folder, onBytes }
    await withinLimits(folder, limits, this.#asked.signal, async (signal) => {
      await this.#run(words, { ...wish, signal })
    })
  }

  #source(digest: string | undefined): string {
    const { reference } = this.#asked
    return `docker://${formatImageReference(digest === undefined ? reference : { ...reference, digest })}`
  }

  #tls(flag: string): readonly string[] {
    return this.#tools.rules.isPlain(this.#asked.reference.registry) ? [`${flag}=false`] : []
  }

  async #run(words: readonly string[], wish: RunWish): Promise<string> {
    const { login, reference, scratchDir } = this.#asked
    const { signal, timeoutMs, onBytes } = wish
    const doorPath = join(scratchDir, 'door')
    await rm(doorPath, { force: true })
    const maxBytes = Math.ceil(wish.tryBytes * (1 + RETRIES))
    await using door = await Door.open(doorPath, { rules: this.#tools.rules, maxBytes })
    const [command, ...args] = this.#commandLine(words, doorPath, wish)
    const timer = onBytes && setInterval(() => onBytes(door.received), PROGRESS_EVERY_MS)
    try {
      const input = login === undefined ? '' : authFile(reference, login)
      const limits = { timeoutMs, maxOutputBytes: MANIFEST_BYTES + STDERR_BYTES }
      const { stdout, stderr, exitCode } = await runForResult(command, args, { input, signal, ...limits })
      if (exitCode === 0) return stdout
      throw door.problem ?? failure(reference, login, stderr)
    } catch (error) {
      throw withoutCommand(error, timeoutMs)
    } finally {
      clearInterval(timer)
    }
  }

  #commandLine(words: readonly string[], doorPath: string, { folder, fileBytes }: RunWish) {
    const { fetcher, uid } = this.#tools
    const [node, program] = fetcher
    return sandboxed({
      binds: [
        { from: node, to: '/opt/node' },
        { from: program, to: '/opt/fetcher.mjs' },
        { from: doorPath, to: '/opt/door' },
        ...(folder === undefined ? [] : [{ from: folder, to: '/work', writable: true }]),
      ],
      speaks: true,
      capabilities: ['CAP_SETUID', 'CAP_SETGID'],
      fileBytes,
      command: [
        ...['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'],
        ...['/opt/node', '/opt/fetcher.mjs', '/opt/door', this.#asked.reference.registry, ...words],
      ],
    })
  }
}

/** Errors of commands have the host's command line in them, which is no user's business. */
function withoutCommand(error: unknown, timeoutMs: number): unknown {
  if (AppError.is(error, 'timeout')) {
    const message = `its registry took longer than ${Math.ceil(timeoutMs / 1_000)} s.`
    return new AppError('registry_unavailable', message, { cause: error })
  }
  if (AppError.is(error, 'engine_failure') && errorText(error).includes('more output')) {
    return new AppError('image_not_usable', 'Its manifest is larger than 4 MiB.', { cause: error })
  }
  return error
}

/** Everything that a fetch makes is removed with its folder, by name. */
export async function makeScratch(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o711 })
  await chmod(folder, 0o711) // whatever the umask is: skopeo's user walks in
}

/** As `skopeo login` keeps it. */
function authFile({ registry }: ImageReference, { username, password }: RegistryLogin): string {
  const key = registry === 'docker.io' ? 'https://index.docker.io/v1/' : registry
  return JSON.stringify({ auths: { [key]: { auth: Buffer.from(`${username}:${password}`).toString('base64') } } })
}

/** The same, of an image that people know by this name. */
export function about(called: string, { code, message, details, cause }: AppError): AppError {
  return new AppError(code, `${called}: ${message}`, { ...(details && { details }), cause })
}

/** Skopeo says why in words alone. */
const meanings = [
  {
    when: /unauthorized|authentication required|requested access to the resource is denied|\bdenied\b|40[13] \(|invalid username\/password/i,
    code: 'image_not_found',
    say: (login: boolean) =>
      login
        ? 'the registry does not let this login read it, or has no such image.'
        : 'the registry lets nobody read it without a login, or has no such image.',
  },
  {
    when: /manifest unknown|name unknown|not found|404 \(/i,
    code: 'image_not_found',
    say: () => 'there is no such image.',
  },
  {
    when: /server gave HTTP response to HTTPS client/i,
    code: 'registry_refused',
    say: () => 'its registry speaks without TLS, which the operator has to allow: WRENN_REGISTRIES_PLAIN.',
  },
  { when: /x509|certificate/i, code: 'registry_refused', say: () => "its registry's certificate is not trusted here." },
  {
    when: /manifest schema|unsupported manifest|unsupported schema|does not match|digest mismatch|invalid digest|foreign layer/i,
    code: 'image_not_usable',
    say: (_: boolean, said: string) => `it cannot be copied: ${said}`,
  },
] as const

/** What skopeo's last words on this image mean. */
export function failure(reference: ImageReference, login: RegistryLogin | undefined, stderr: string): AppError {
  const said = fatalOf(stderr)
  const reason = withoutNames(said, reference)
  const isFatal = stderr.includes('level=fatal')
  const limit = limitSaid(isFatal ? reason : stderr) // a runtime that ends says why at its beginning
  if (limit !== undefined) return limit
  const meaning = isFatal ? meanings.find(({ when }) => when.test(reason)) : undefined
  const shown = login === undefined ? said : said.replaceAll(login.password, '…')
  if (meaning === undefined) return new AppError('registry_unavailable', `the registry failed: ${shown}`)
  return new AppError(meaning.code, meaning.say(login !== undefined, shown))
}

/** Images are called as their makers like, `denied` or `not-found` too: only what is said of them counts. */
function withoutNames(said: string, { registry, path, tag }: ImageReference): string {
  const named = said.replaceAll(/https?:\/\/[^\s"]+/g, '…').replaceAll(`${registry}/${path}`, '…')
  return named.replaceAll(`…:${tag}`, '…').replaceAll(`manifest ${tag} in`, 'manifest … in')
}

const MAX_SAID = 400

/** The message of skopeo's last line, in logrus' form. */
export function fatalOf(stderr: string): string {
  const line = stderr.trim().split('\n').at(-1) ?? ''
  const quoted = /level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)/.exec(line)?.[1] ?? line
  const text = quoted.startsWith('"') ? quoted.slice(1, -1).replaceAll('\\"', '"').replaceAll('\\n', ' ') : quoted
  return text.slice(0, MAX_SAID)
}
