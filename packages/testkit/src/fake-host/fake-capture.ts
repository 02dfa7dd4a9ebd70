import { execFile } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { relative, resolve } from 'node:path'
import { promisify } from 'node:util'
import { treeBytes, treeDigest } from './fake-diff.js'
import type { FakeFiles } from './fake-files.js'
import { FakeProcess, type ProcessImage } from './fake-process.js'

const run = promisify(execFile)

/** What of a capsule is saved and replaced. */
interface Capturable {
  readonly files: FakeFiles
  processes: FakeProcess[]
  killProcesses(): Promise<void>
}

/** A capsule's files and processes at one moment. */
export class FakeCapture {
  /** Has the files as they were. */
  readonly dir: string
  readonly bytes: number
  readonly #processes: readonly ProcessImage[]
  /** Of its files, when it was taken. */
  readonly #digest: string

  private constructor(dir: string, bytes: number, digest: string, processes: readonly ProcessImage[]) {
    this.dir = dir
    this.bytes = bytes
    this.#digest = digest
    this.#processes = processes
  }

  /** The capsule must stand still. */
  static async take({ files, processes }: Capturable, dir: string): Promise<FakeCapture> {
    const images = processes.map((process) => process.image())
    await copyTree(files.root, dir)
    return new FakeCapture(
      dir,
      await treeBytes(dir),
      await treeDigest(dir),
      images.map((image) => ({
        ...image,
        options: { ...image.options, cwd: relative(files.root, image.options.cwd) },
      })),
    )
  }

  /** Whether its files are, byte by byte, what was captured. */
  async isIntact(): Promise<boolean> {
    return (await treeDigest(this.dir)) === this.#digest
  }

  /** Replaces files and processes of `capsule`; the new processes stand still. */
  async restoreInto(capsule: Capturable): Promise<void> {
    await capsule.killProcesses()
    await rm(capsule.files.root, { recursive: true, force: true })
    await copyTree(this.dir, capsule.files.root)
    capsule.processes = this.#processes.map(
      (image) => new FakeProcess({ ...image.options, cwd: resolve(capsule.files.root, image.options.cwd) }, image),
    )
  }

  /** The same once more, in a directory of its own. */
  async copy(dir: string): Promise<FakeCapture> {
    await copyTree(this.dir, dir)
    return new FakeCapture(dir, this.bytes, this.#digest, this.#processes)
  }

  async dispose(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true })
  }
}

async function copyTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  await run('cp', ['-a', `${from}/.`, to])
}
