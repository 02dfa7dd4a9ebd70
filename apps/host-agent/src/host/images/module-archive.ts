import { mkdir, rename, symlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import type { Apt } from './apt.js'
import { runCommand } from './command.js'
import { packagePath, unpackPackage } from './debian.js'

/**
 * Packs a kernel's modules with the indexes that modprobe and the kernel's own requests go by: an archive of
 * `usr/lib/modules/<release>`, equal for equal packages. The modules stay compressed as they are packaged.
 * @param folder `…/<release>` as unpacked; it is moved away
 * @returns path of the archive in `scratchDir`
 */
export async function archiveModules(
  apt: Apt,
  folder: string,
  scratchDir: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const release = basename(folder)
  const tree = join(scratchDir, 'modules')
  await mkdir(join(tree, 'usr', 'lib', 'modules'), { recursive: true })
  // depmod of Debian 12 looks below lib, later ones below usr/lib.
  await symlink('usr/lib', join(tree, 'lib'))
  await rename(folder, join(tree, 'usr', 'lib', 'modules', release))
  await runDepmod(apt, tree, release, scratchDir, signal)
  const archive = join(scratchDir, 'modules.tar')
  const plain = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--mode=u=rwX,go=rX']
  await runCommand('tar', [...plain, '-cf', archive, '-C', tree, 'usr'], { signal })
  return archive
}

/** With Debian's own depmod, unpacked for this alone: few hosts in containers have one. */
async function runDepmod(
  apt: Apt,
  tree: string,
  release: string,
  scratchDir: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const kmod = await unpackPackage(apt, 'kmod', scratchDir, signal)
  const library = await unpackPackage(apt, 'libkmod2', scratchDir, signal)
  // One program that goes by the name it is called with; the package's own link is absolute.
  const depmod = join(scratchDir, 'depmod')
  await symlink(await packagePath(kmod, 'bin/kmod'), depmod)
  const libraries = await packagePath(library, 'lib/x86_64-linux-gnu')
  await runCommand(depmod, ['-b', tree, release], { signal, env: { LD_LIBRARY_PATH: libraries } })
}
