import ignore from '@balena/dockerignore'
import { WrennError } from '@wrenn/sdk'
import type { ArchiveEntry, BuildContext, ContextEntry } from '@wrenn/sdk/dockerfile'
import { createTarPacker, type TarPackController } from 'modern-tar'
import { changed } from '../files/changed.js'
import type { Dropped } from '../files/dropped.js'

/** Browsers tell no modes: as Docker has it where there are none, so that scripts can be run. */
const MODE = 0o755
/** Its digest needs the whole file in memory. */
const MAX_FILE_BYTES = 512 * 1024 * 1024
/** Times decide nothing, and two that differ would make two archives. */
const NO_TIME = new Date(0)
/** Below Windows and macOS. */
const DEBRIS = new Set(['.DS_Store', 'Thumbs.db', 'desktop.ini'])

/** Files that were dropped or chosen, as what a Dockerfile may copy. */
export interface ContextFiles {
  readonly files: ReadonlyMap<string, File>
  /** One named `Dockerfile`, at the top. */
  readonly dockerfile: File | undefined
  /** The `.dockerignore` at the top. */
  readonly ignored: File | undefined
}

/** A folder that is dropped alone is the context itself. */
export function contextFiles(dropped: readonly Dropped[]): ContextFiles {
  const [top] = dropped[0]?.path.split('/') ?? []
  const isFolder = dropped.every(({ path }) => path.startsWith(`${top}/`))
  const files = new Map(
    dropped
      .map(({ path, file }) => [isFolder ? path.slice((top?.length ?? 0) + 1) : path, file] as const)
      .filter(([path]) => !DEBRIS.has(path.slice(path.lastIndexOf('/') + 1))),
  )
  return { files, dockerfile: files.get('Dockerfile'), ignored: files.get('.dockerignore') }
}

/** What a Dockerfile may copy of files that the page was given. */
export class FileContext implements BuildContext {
  readonly #files: ReadonlyMap<string, File>
  readonly #patterns: readonly string[]
  readonly #digests = new Map<string, Promise<string>>()
  #entries: readonly ContextEntry[] | undefined

  /** @param patterns lines of a `.dockerignore` */
  constructor(files: ReadonlyMap<string, File>, patterns: readonly string[] = []) {
    this.#files = files
    this.#patterns = patterns
  }

  async entries(): Promise<readonly ContextEntry[]> {
    this.#entries ??= this.#list()
    return this.#entries
  }

  /** What of it is left, without folders. */
  async sum(): Promise<{ readonly count: number; readonly sizeBytes: number }> {
    const files = (await this.entries()).filter(({ type }) => type === 'file')
    const sizeBytes = files.reduce((sum, { path }) => sum + (this.#files.get(path)?.size ?? 0), 0)
    return { count: files.length, sizeBytes }
  }

  /** @throws WrennError `invalid_request` for what is too large, `file_not_found` for what is not there any more */
  digest(path: string): Promise<string> {
    const known = this.#digests.get(path) ?? this.#read(path)
    this.#digests.set(path, known)
    return known
  }

  archive(entries: readonly ArchiveEntry[]): ReadableStream<Uint8Array> {
    const { readable, controller } = createTarPacker()
    this.#pack(entries, controller).then(
      () => controller.finalize(),
      (error: unknown) => controller.error(error),
    )
    return readable
  }

  #list(): readonly ContextEntry[] {
    const files = [...this.#files.keys()].map((path) => ({ path, type: 'file', mode: MODE }) as const)
    const folders = new Set(files.flatMap(({ path }) => parentsOf(path)))
    const found: readonly ContextEntry[] = [
      ...[...folders].map((path) => ({ path, type: 'directory', mode: MODE }) as const),
      ...files,
    ].sort((one, other) => (one.path < other.path ? -1 : 1))
    // Small and capital letters differ, which the library does not hold by itself.
    const filter = ignore({ ignorecase: false }).add([...this.#patterns])
    const kept = found.filter(({ path }) => !filter.ignores(path))
    // A folder that is left out is there for what an exception keeps in it.
    const needed = new Set(kept.flatMap(({ path }) => parentsOf(path)))
    const isKept = new Set(kept)
    return found.filter((entry) => isKept.has(entry) || (entry.type === 'directory' && needed.has(entry.path)))
  }

  #file(path: string): File {
    const file = this.#files.get(path)
    if (file === undefined) throw new Error(`There is no ${path}.`) // asked for is only what was listed
    return file
  }

  async #read(path: string): Promise<string> {
    const file = this.#file(path)
    if (file.size > MAX_FILE_BYTES) {
      throw new WrennError(`${path} is larger than 512 MiB, which a page cannot read as a whole.`, {
        code: 'invalid_request',
        hint: '`wrenn template build` takes files of any size.',
      })
    }
    const bytes = await file.arrayBuffer().catch((error: unknown) => {
      throw changed(path, error)
    })
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
    return [...digest].map((byte) => byte.toString(16).padStart(2, '0')).join('')
  }

  async #pack(entries: readonly ArchiveEntry[], controller: TarPackController): Promise<void> {
    for (const one of entries) {
      const head = { mtime: NO_TIME, mode: MODE }
      if ('text' in one) {
        const body = new Blob([one.text])
        await body.stream().pipeTo(controller.add({ ...head, mode: 0o644, name: one.as, size: body.size }))
      } else if (one.entry.type === 'directory') {
        await controller.add({ ...head, name: `${one.as}/`, type: 'directory', size: 0 }).close()
      } else {
        const file = this.#file(one.entry.path)
        await file
          .stream()
          .pipeTo(controller.add({ ...head, name: one.as, size: file.size }), { preventAbort: true })
          .catch((error: unknown) => {
            throw changed(one.entry.path, error)
          })
      }
    }
  }
}

function parentsOf(path: string): string[] {
  const parts = path.split('/')
  return parts.slice(0, -1).map((_, index) => parts.slice(0, index + 1).join('/'))
}
