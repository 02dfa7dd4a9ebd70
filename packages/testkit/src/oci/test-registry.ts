import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { waitFor } from '@wrenn/base'
import { freePort } from '../free-port.js'

/** By bcrypt, for `user` and the password of {@link registryLogin}. */
const HTPASSWD = 'user:$2y$05$wrennwrennwrennwrennwONr7TEeGKsSC.Ve7XCaB7LLvelk/a6X.\n'

/** Who may ask a registry that asks for a login. */
export const registryLogin = { username: 'user', password: 'not a secret' } as const

interface RegistryOptions {
  /** Its own; it may be there already. */
  readonly dir: string
  /** @default 127.0.0.1 */
  readonly address?: string
  readonly needsLogin?: boolean
}

/** Debian's `docker-registry` on loopback, without TLS. */
export class TestRegistry implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #needsLogin: boolean
  /** `address:port`, what references begin with. */
  readonly authority: string

  private constructor(child: ChildProcess, authority: string, needsLogin: boolean) {
    this.#child = child
    this.authority = authority
    this.#needsLogin = needsLogin
  }

  static async start({ dir, address = '127.0.0.1', needsLogin = false }: RegistryOptions): Promise<TestRegistry> {
    await mkdir(dir, { recursive: true })
    const authority = `${address}:${await freePort(address)}`
    await writeFile(join(dir, 'htpasswd'), HTPASSWD)
    const config = {
      version: '0.1',
      log: { level: 'error' },
      storage: { filesystem: { rootdirectory: join(dir, 'data') } },
      http: { addr: authority },
      ...(needsLogin ? { auth: { htpasswd: { realm: 'test', path: join(dir, 'htpasswd') } } } : {}),
    }
    await writeFile(join(dir, 'config.yml'), JSON.stringify(config)) // JSON is YAML
    const child = spawn('docker-registry', ['serve', join(dir, 'config.yml')], { stdio: 'ignore' })
    const failed = new AbortController()
    child.on('error', (error) => failed.abort(error))
    child.on('exit', (code, signal) => failed.abort(new Error(`docker-registry ended: ${code ?? signal}`)))
    const registry = new TestRegistry(child, authority, needsLogin)
    const answers = async (): Promise<true | undefined> =>
      (await fetch(`http://${authority}/v2/`).catch(() => undefined)) === undefined ? undefined : true
    try {
      await waitFor(answers, { timeoutMs: 30_000, what: 'the registry to answer', signal: failed.signal })
      return registry
    } catch (error) {
      const reason: unknown = failed.signal.aborted ? failed.signal.reason : error
      await registry[Symbol.asyncDispose]()
      throw reason
    }
  }

  /** Puts a layout's image there. @returns its reference */
  push(layout: string, name: string): string {
    const { username, password } = registryLogin
    const login = this.#needsLogin ? ['--dest-creds', `${username}:${password}`] : []
    const words = ['--insecure-policy', 'copy', '--all', '--quiet', '--dest-tls-verify=false', ...login]
    const reference = `${this.authority}/${name}`
    execFileSync('skopeo', [...words, `oci:${layout}:image`, `docker://${reference}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    return reference
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { pid, exitCode, signalCode } = this.#child
    if (pid === undefined || exitCode !== null || signalCode !== null) return
    const ended = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await ended
  }
}
