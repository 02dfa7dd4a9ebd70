import { chmod, mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, isErrno, type UndoStack } from '@wrenn/base'
import { allocatedBytes } from '../../allocated.js'
import { syncPath } from '../store.js'
import { readTemplateManifest, type TemplateManifest } from '../template-archive.js'
import { imageArchitecture } from './manifest.js'

const MIB = 2 ** 20

/** Disks of templates that came as archives, with what these say of them: beside the layers, by the image's name, and root's alone to read. */
export class TemplateDisks {
  readonly #root: string

  constructor(poolDir: string) {
    this.#root = join(poolDir, 'layers', 'disks')
  }

  path(name: string): string {
    return join(this.#root, `${name}.raw`)
  }

  /** @throws AppError `image_not_usable` */
  async manifest(name: string): Promise<TemplateManifest> {
    return await readTemplateManifest(this.#manifestPath(name), imageArchitecture())
  }

  /** Whether it is there with what belongs to it. */
  async isWhole(name: string): Promise<boolean> {
    try {
      const { diskSizeMib } = await this.manifest(name)
      return (await stat(this.path(name))).size === diskSizeMib * MIB
    } catch (error) {
      if (isErrno(error, 'ENOENT') || AppError.is(error, 'image_not_usable')) return false
      throw error
    }
  }

  /** What it takes; nothing of one that has gone. */
  async bytes(name: string): Promise<number> {
    const info = await stat(this.path(name)).catch((error: unknown) => {
      if (isErrno(error, 'ENOENT')) return undefined
      throw error
    })
    return info === undefined ? 0 : allocatedBytes(info)
  }

  /** Moves both files here, durable before anything names them; the stack takes them away again. */
  async keep(
    name: string,
    { disk, manifest }: { readonly disk: string; readonly manifest: string },
    undo: UndoStack,
  ): Promise<void> {
    await chmod(disk, 0o400)
    await mkdir(this.#root, { recursive: true, mode: 0o700 })
    for (const [from, to] of [
      [disk, this.path(name)],
      [manifest, this.#manifestPath(name)],
    ] as const) {
      await syncPath(from)
      await undo.defer(() => rm(to, { force: true }))
      await rename(from, to)
    }
    await syncPath(this.#root)
  }

  async remove(name: string): Promise<void> {
    await rm(this.path(name), { force: true })
    await rm(this.#manifestPath(name), { force: true })
  }

  /** Removes those of no image of these names. */
  async removeOthers(names: readonly string[]): Promise<void> {
    const known = new Set(names)
    const files = await readdir(this.#root).catch((error: unknown) => {
      if (isErrno(error, 'ENOENT')) return []
      throw error
    })
    for (const file of files) {
      if (!known.has(file.replace(/\.\w+$/, ''))) await rm(join(this.#root, file))
    }
  }

  #manifestPath(name: string): string {
    return join(this.#root, `${name}.json`)
  }
}
