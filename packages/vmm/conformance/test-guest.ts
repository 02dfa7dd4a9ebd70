import { execFile } from 'node:child_process'
import { chmod, copyFile, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Modules of Debian's cloud kernel, in the order in which they depend on each other. */
const MODULES = [
  'net/core/failover',
  'drivers/net/net_failover',
  'drivers/net/virtio_net',
  'drivers/block/virtio_blk',
  'drivers/virtio/virtio_balloon',
  'drivers/char/hw_random/virtio-rng',
]

/** PID 1 of the test guest: a shell behind a TCP port, all in RAM. */
const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /ram /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs ram /ram
for module in ${MODULES.map((path) => path.replace(/.*\//, '')).join(' ')}; do insmod /modules/$module.ko; done
echo "wrenn-test-guest up $(cut -d' ' -f1 /proc/uptime)"
if grep -q wrenn.probe=1 /proc/cmdline; then echo wrenn-probe-ok; poweroff -f; fi
ip link set lo up
ip addr add 169.254.0.21/30 dev eth0
ip link set eth0 up
echo "wrenn-test-guest listens"
nc -ll -p 7000 -e /serve
while :; do sleep 60; done
`

const SERVE = '#!/bin/busybox sh\nexec /bin/busybox sh 2>&1\n'

export interface TestGuest {
  readonly kernelPath: string
  readonly initrdPath: string
  readonly busyboxPath: string
}

/** A kernel from Debian and an initramfs around busybox, made once and kept in `cacheDir`. */
export async function makeTestGuest(cacheDir: string): Promise<TestGuest> {
  const ready = join(cacheDir, 'test-guest-2')
  if (!(await exists(ready))) {
    const draft = `${ready}.${process.pid}`
    await build(draft)
    await rename(draft, ready).catch(() => rm(draft, { recursive: true })) // another run was first
  }
  return {
    kernelPath: join(ready, 'vmlinuz'),
    initrdPath: join(ready, 'initrd.gz'),
    busyboxPath: join(ready, 'busybox'),
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

async function build(folder: string): Promise<void> {
  const tree = join(folder, 'tree')
  await mkdir(join(tree, 'modules'), { recursive: true })
  const { root, version } = await unpackPackages(folder)
  await copyFile(join(root, 'boot', `vmlinuz-${version}`), join(folder, 'vmlinuz'))
  await copyFile(join(root, 'bin/busybox'), join(folder, 'busybox'))
  await mkdir(join(tree, 'bin'))
  await copyFile(join(root, 'bin/busybox'), join(tree, 'bin/busybox'))
  for (const path of MODULES) await unpackModule(join(root, 'lib/modules', version, 'kernel', `${path}.ko`), tree)
  await writeFile(join(tree, 'init'), INIT)
  await writeFile(join(tree, 'serve'), SERVE)
  for (const file of ['init', 'serve', 'bin/busybox']) await chmod(join(tree, file), 0o755)
  await run('sh', [
    '-c',
    'cd "$1" && find . | cpio -o -H newc --quiet | gzip -1 >"$2"',
    'sh',
    tree,
    join(folder, 'initrd.gz'),
  ])
  for (const used of [root, tree]) await rm(used, { recursive: true })
}

async function unpackPackages(folder: string): Promise<{ readonly root: string; readonly version: string }> {
  const image = await download(folder).catch(async () => {
    // The machine's package lists are older than the archive.
    await run('apt-get', ['update', '-q'])
    return await download(folder)
  })
  const root = join(folder, 'root')
  for (const file of await readdir(folder)) {
    if (!file.endsWith('.deb')) continue
    await run('dpkg-deb', ['-x', join(folder, file), root])
    await rm(join(folder, file))
  }
  return { root, version: image.replace('linux-image-', '') }
}

/** Gives the kernel's package. */
async function download(folder: string): Promise<string> {
  const depends = await run('apt-cache', ['depends', 'linux-image-6.12-cloud-amd64'])
  const image = /Depends: (linux-image-\S+)/.exec(depends.stdout)?.[1]
  if (!image) throw new Error('apt knows no linux-image-6.12-cloud-amd64')
  await run('apt-get', ['download', '-q', image, 'busybox-static'], { cwd: folder })
  return image
}

async function unpackModule(path: string, tree: string): Promise<void> {
  const name = path.replace(/.*\//, '')
  await run('sh', [
    '-c',
    'if [ -e "$1.xz" ]; then xz -dc "$1.xz"; else cat "$1"; fi >"$2"',
    'sh',
    path,
    join(tree, 'modules', name),
  ])
}
