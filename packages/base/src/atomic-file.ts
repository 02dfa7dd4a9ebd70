import { randomBytes } from 'node:crypto'
import { open, readdir, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isErrno } from './errors.js'

/** What is being written beside the file of the name before it. */
const UNFINISHED = /^(.+)\.[0-9a-f]{8}\.tmp$/

/** Replaces `path` by `content` in one atomic step that survives a power loss: write beside, fsync, rename, fsync the folder. */
export async function writeFileAtomic(path: string, content: string | Uint8Array, mode = 0o600): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString('hex')}.tmp`
  const file = await open(beside, 'wx', mode)
  try {
    await file.writeFile(content)
    await file.sync()
  } catch (error) {
    await rm(beside, { force: true })
    throw error
  } finally {
    await file.close()
  }
  await rename(beside, path)
  const folder = await open(dirname(path), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Removes what writers that were killed left of `writeFileAtomic` directly in `dir`. Nobody may write there meanwhile. */
export async function removeUnfinished(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (UNFINISHED.test(name)) await rm(join(dir, name), { force: true })
  }
}

/** Removes these entries of `dir`, files and folders, and what killed writers left of them; what is not there is no error. */
export async function removeEntries(dir: string, names: Iterable<string>): Promise<void> {
  const wanted = new Set(names)
  for (const name of await entriesOf(dir)) {
    const own = UNFINISHED.exec(name)?.[1] ?? name
    if (wanted.has(own)) await rm(join(dir, name), { recursive: true, force: true })
  }
}

async function entriesOf(dir: string): Promise<string[]> {
  try {
    return await readdir(dir)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
