import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** How to run helper programs: bundled ones through the bundled loader, so that they work on any userland. */
export class Tools {
  readonly #dir: string | undefined

  constructor(toolsDir: string | undefined) {
    this.#dir = toolsDir
  }

  /** A directory on the file system that keeps the capsule's data. */
  get dataDir(): string {
    return this.#dir === undefined ? '/' : join(this.#dir, 'data')
  }

  /** The command line prefix that runs a dynamically linked tool. */
  command(name: string): readonly string[] {
    if (this.#dir === undefined) return [name]
    const lib = join(this.#dir, 'lib')
    return [join(lib, loaderName()), '--library-path', lib, join(this.#dir, 'bin', name)]
  }

  /** The command line prefix of a small tool: an applet of the static busybox, or the system's own program. */
  applet(name: string): readonly string[] {
    return this.#dir === undefined ? [name] : [join(this.#dir, 'bin', 'busybox'), name]
  }

  /** Path of a bundled static program, where this drive has it. */
  program(name: string): string | undefined {
    const path = this.#dir === undefined ? undefined : join(this.#dir, 'bin', name)
    return path !== undefined && existsSync(path) ? path : undefined
  }

  /** Candidates for the native terminal module, best first. */
  ptyModule(besideBundle: string): string {
    const bundled = this.#dir === undefined ? undefined : join(this.#dir, 'pty.node')
    return bundled !== undefined && existsSync(bundled) ? bundled : besideBundle
  }
}

function loaderName(): string {
  return process.arch === 'arm64' ? 'ld-linux-aarch64.so.1' : 'ld-linux-x86-64.so.2'
}
