import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError } from '@wrenn/base'
import { runCommand } from './command.js'
import { exists } from './store.js'

const DOWNLOAD_TIMEOUT_MS = 300_000

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

/** Downloads the candidate version of `name` and unpacks it under `scratchDir`. */
export async function unpackPackage(
  name: string,
  scratchDir: string,
  signal: AbortSignal | undefined,
): Promise<UnpackedPackage> {
  const archives = join(scratchDir, `deb-${name}`)
  const root = join(scratchDir, `root-${name}`)
  await mkdir(archives, { recursive: true })
  // As root: the sandbox user of apt may not be able to enter the pool, and then only warns.
  const args = ['-q', '-o', 'APT::Sandbox::User=root', 'download', name]
  await runCommand('apt-get', args, { cwd: archives, signal, timeoutMs: DOWNLOAD_TIMEOUT_MS })
  const archive = (await readdir(archives)).find((file) => file.endsWith('.deb'))
  if (archive === undefined) {
    throw new AppError('image_build_failed', `apt-get downloaded nothing for ${name}. Run: apt-get update`)
  }
  const path = join(archives, archive)
  await runCommand('dpkg-deb', ['--extract', path, root], { signal, debianPackage: 'dpkg' })
  const { stdout } = await runCommand('dpkg-deb', ['--field', path, 'Version'], { signal, debianPackage: 'dpkg' })
  return { name, version: stdout.toString().trim(), root }
}

/** The first of `metaPackages` that apt knows, resolved to the real package it depends on now. */
export async function resolveKernelPackage(
  metaPackages: readonly string[],
  signal: AbortSignal | undefined,
): Promise<string> {
  for (const meta of metaPackages) {
    const { stdout } = await runCommand('apt-cache', ['depends', meta], { signal, debianPackage: 'apt' }).catch(
      (error: unknown) => {
        if (AppError.is(error, 'image_build_failed')) return { stdout: Buffer.alloc(0) } // unknown to apt
        throw error
      },
    )
    const real = /Depends: (linux-image-\d\S+)/.exec(stdout.toString())?.[1]
    if (real !== undefined) return real
  }
  throw new AppError(
    'invalid_config',
    `apt knows none of ${metaPackages.join(', ')}. Enable Debian's main component, then run: apt-get update`,
  )
}
