import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const checkout = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))))

/** What is built, and what that reads beside itself. */
const copied = [
  'apps/cli/bin',
  'apps/cli/dist',
  'apps/cli/package.json',
  'apps/control-plane/dist',
  'apps/control-plane/package.json',
  'apps/host-agent/dist',
  'apps/host-agent/package.json',
  'apps/guest-agent/dist',
  'apps/guest-agent/package.json',
  'images',
  'scripts/debian-packages.mjs',
  'package.json',
]
/** The published SDK and what it imports of ours: real directories, so that they resolve to what was built, not to sources. */
const publishedPackages = ['protocol', 'sdk']

/**
 * Copies the built product to `target`, so that a build in the checkout cannot change it under a running platform.
 * Packages from npm are links to the checkout's.
 */
export async function copyArtefacts(target: string): Promise<void> {
  for (const path of copied) await cp(join(checkout, path), join(target, path), { recursive: true })
  const modules = join(target, 'node_modules')
  await mkdir(join(modules, '@wrenn'), { recursive: true })
  for (const name of await readdir(join(checkout, 'node_modules'))) {
    if (name === '@wrenn' || name.startsWith('.')) continue
    await symlink(join(checkout, 'node_modules', name), join(modules, name))
  }
  for (const name of publishedPackages) {
    const from = join(checkout, 'packages', name)
    await cp(join(from, 'build'), join(modules, '@wrenn', name, 'build'), { recursive: true })
    const manifest = await readFile(join(from, 'package.json'), 'utf8')
    await writeFile(join(modules, '@wrenn', name, 'package.json'), withoutSources(manifest))
  }
}

/** A published package has no sources: the condition that leads to them must not be taken, whatever the test runner's are. */
function withoutSources(manifest: string): string {
  return JSON.stringify(JSON.parse(manifest, (key, value) => (key === 'wrenn-source' ? undefined : value)))
}
