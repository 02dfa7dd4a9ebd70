import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import type { Apt } from './apt.js'
import { runCommand } from './command.js'
import { exists } from './store.js'

/** A package downloaded and unpacked, never installed. */
export interface UnpackedPackage {
  readonly name: string
  readonly version: string
  readonly root: string
}

/**
 * Where a package has `path`, which is given as before the merge of /usr (`bin/busybox`, `lib/modules/…`): Debian 12 and earlier
 * pack many files there, later ones below `usr`.
 * @throws AppError `image_build_failed` when it has neither
 */
export async function packagePath(unpacked: UnpackedPackage, path: string): Promise<string> {
  for (const folder of ['.', 'usr']) {
    const candidate = join(unpacked.root, folder, path)
    if (await exists(candidate)) return candidate
  }
  throw new AppError('image_build_failed', `The package ${unpacked.name} ${unpacked.version} holds no ${path}.`)
}

/** Downloads the newest version of `name` and unpacks it under `scratchDir`. */
export async function unpackPackage(
  apt: Apt,
  name: string,
  scratchDir: string,
  signal: AbortSignal | undefined,
): Promise<UnpackedPackage> {
  const root = join(scratchDir, `root-${name}`)
  const path = await apt.download(name)
  await runCommand('dpkg-deb', ['--extract', path, root], { signal, debianPackage: 'dpkg' })
  const { stdout } = await runCommand('dpkg-deb', ['--field', path, 'Version'], { signal, debianPackage: 'dpkg' })
  return { name, version: stdout.toString().trim(), root }
}
