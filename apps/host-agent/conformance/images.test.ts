import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { silentLogger, stopChild, waitFor } from '@wrenn/base'
import { freePort } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Apt } from '../src/host/images/apt.js'
import { createLayer } from '../src/host/images/ext4.js'
import {
  type BaseImage,
  type BootAssets,
  blankDisk,
  buildImage,
  ensureBootAssets,
  ensureImage,
  kernelArgs,
  listImages,
  pruneLayers,
  readKernelChoice,
  removeImage,
  verifyImages,
} from '../src/host/images/index.js'

const repository = resolve(import.meta.dirname, '../../..')
const MIB = 1_048_576
const DISK_MIB = 1024
/** An image takes minutes on a machine that is busy with other things. */
const BUILD_TIMEOUT_MS = 900_000

/** Stands in for the guest agent, which has its own suite: answers /health and runs shell commands. */
const STAND_IN = `
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
createServer(async (request, response) => {
  if (request.url === '/health') return response.end(readFileSync('/proc/uptime'))
  const run = spawnSync('/bin/bash', ['-c', await text(request)], { encoding: 'utf8' })
  response.end(JSON.stringify({ status: run.status, stdout: run.stdout, stderr: run.stderr }))
}).listen(Number(process.env.WRENN_AGENT_PORT), '0.0.0.0')
`

const missing = ['qemu-system-x86_64', 'mmdebstrap', 'mkfs.ext4'].filter(
  (tool) => spawnSync(tool, ['--version']).error !== undefined,
)
const reason = process.getuid?.() !== 0 ? 'needs root' : missing.length > 0 ? `needs ${missing.join(', ')}` : ''

describe.skipIf(reason !== '')(`images built from Debian ${reason}`, () => {
  let scratch: string
  let poolDir: string
  let assets: BootAssets
  let image: BaseImage
  const steps: string[] = []

  const bootIndex = async (): Promise<{ busyboxDigest: string; modulesDigest: string }> =>
    JSON.parse(await readFile(join(poolDir, 'layers/index/boot.json'), 'utf8'))

  const options = () => ({
    poolDir,
    aptDir: join(scratch, 'apt'),
    imagesDir: join(repository, 'images'),
    logger: silentLogger,
    onProgress: (progress: { step: string }) => steps.push(progress.step),
    agent: {
      bundlePath: join(scratch, 'agent.mjs'),
      ptyAddonPath: join(repository, 'node_modules/@lydell/node-pty-linux-x64/pty.node'),
      interpreterPath: join(scratch, 'agent.mjs'),
    },
  })

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'wrenn-images-'))
    poolDir = join(scratch, 'pool')
    await mkdir(poolDir)
    await writeFile(join(scratch, 'agent.mjs'), STAND_IN)
    // Two builders at once: one builds, the other waits and finds it done.
    const both = await Promise.all([ensureBootAssets(options()), ensureBootAssets(options())])
    assets = both[0]
    expect(both[1]).toEqual(assets)
    image = await ensureImage('base', options())
  }, BUILD_TIMEOUT_MS)

  afterAll(async () => {
    await rm(scratch, { recursive: true, force: true })
  })

  it('builds each thing once and leaves nothing in scratch', () => {
    expect(steps.filter((step) => step === 'kernel')).toHaveLength(1)
    expect(steps.filter((step) => step === 'bootstrap')).toHaveLength(1)
    expect(readdirSync(join(poolDir, 'layers/scratch'))).toEqual([])
  })

  it('keeps every file read-only under the checksum of its content, and notices damage', async () => {
    expect(await verifyImages(poolDir)).toMatchObject({ damaged: [] })
    expect((await stat(image.path)).mode & 0o777).toBe(0o444)
    const impostor = join(poolDir, 'layers', '0'.repeat(64))
    await writeFile(impostor, 'not that')
    expect(await verifyImages(poolDir)).toMatchObject({ damaged: ['0'.repeat(64)] })
    expect(await pruneLayers({ poolDir, inUse: () => false })).toEqual(['0'.repeat(64)])
    expect(existsSync(impostor)).toBe(false)
  })

  it(
    'makes the same image from the same packages, of what it downloaded before when the network is away',
    async () => {
      vi.stubEnv('http_proxy', 'http://127.0.0.1:9')
      try {
        const again = await buildImage('minimal', { ...options(), rebuild: true })
        expect(again.packages).toEqual(image.packages)
        expect(again.digest).toBe(image.digest)
      } finally {
        vi.unstubAllEnvs()
      }
    },
    BUILD_TIMEOUT_MS,
  )

  it("leaves the host's apt as it is and does without its package lists", async () => {
    const lists = '/var/lib/apt/lists'
    const before = await stat(lists)
    const empty = await mkdtemp(join(scratch, 'apt-'))
    const apt = await Apt.open('bookworm', { ...options(), aptDir: empty })
    expect(await apt.download('busybox-static')).toMatch(/\/busybox-static_.*\.deb$/)
    await expect(apt.download('no-such-package')).rejects.toMatchObject({ code: 'image_build_failed' })
    expect((await stat(lists)).mtimeMs).toBe(before.mtimeMs)
  })

  it('says which kernel it took and why', async () => {
    expect(await readKernelChoice(poolDir)).toMatchObject({
      kernelVersion: assets.kernelVersion,
      isPreferred: true,
      reason: expect.stringContaining('linux-image-6.12-cloud-amd64'),
    })
  })

  it('packs the modules of a kernel with what depmod makes of them, equal for equal packages', async () => {
    const archive = async (): Promise<string> => (await bootIndex()).modulesDigest
    const before = await archive()
    const listing = spawnSync('tar', ['-tvf', join(poolDir, 'layers', before)], { encoding: 'utf8' }).stdout
    for (const name of ['kernel/drivers/net/tun.ko', 'modules.dep.bin', 'modules.alias', 'modules.devname']) {
      expect(listing).toMatch(
        new RegExp(`^-rw-r--r-- 0/0 .* usr/lib/modules/${assets.kernelVersion.replace('+', '.')}/${name}`, 'm'),
      )
    }
    const again = await ensureBootAssets({ ...options(), rebuild: true })
    expect(again).toEqual(assets)
    expect(await archive()).toBe(before)
  })

  it('makes a new agent drive for a new agent, and only that', async () => {
    await writeFile(join(scratch, 'other.mjs'), `${STAND_IN}// changed`)
    const agent = { ...options().agent, bundlePath: join(scratch, 'other.mjs') }
    const upgraded = await ensureBootAssets({ ...options(), agent })
    expect(upgraded.agentVersion).not.toBe(assets.agentVersion)
    expect(upgraded.initrdDigest).toBe(assets.initrdDigest)
    expect((await ensureImage('base', options())).digest).toBe(image.digest)
    expect(await ensureBootAssets(options())).toEqual(assets)
  })

  it('refuses to remove an image in use, by name and by alias', async () => {
    expect((await listImages(poolDir)).map(({ name }) => name)).toEqual(['minimal'])
    await expect(removeImage('base', { poolDir, inUse: (digest) => digest === image.digest })).rejects.toMatchObject({
      code: 'invalid_state',
    })
    expect(await removeImage('unknown', { poolDir, inUse: () => false })).toBe(false)
  })

  it('formats a blank disk that is sparse and has nothing left to initialise', async () => {
    const path = await blankDisk(poolDir, DISK_MIB)
    const { size, blocks } = await stat(path)
    expect(size).toBe(DISK_MIB * MIB)
    expect(blocks * 512).toBeLessThan(24 * MIB)
    const groups = spawnSync('dumpe2fs', [path], { encoding: 'utf8' }).stdout.match(/^Group \d+:.*$/gm) ?? []
    expect(groups.length).toBeGreaterThan(0)
    expect(groups.every((group) => group.includes('ITABLE_ZEROED'))).toBe(true)
  })

  it('prints the probe line and powers off when asked to, without any drive', async () => {
    await using guest = await bootGuest(scratch, assets, [], ['wrenn.probe=1'])
    await guest.ended()
    expect(guest.console()).toContain('WRENN-PROBE-OK')
  })

  it('says which drive is missing and powers off', async () => {
    await using guest = await bootGuest(scratch, assets, [['agent', assets.agentDrivePath]], [])
    await guest.ended()
    expect(guest.console()).toContain('no drive with serial: base data')
  })

  it('boots to a sane capsule', { timeout: BUILD_TIMEOUT_MS }, async () => {
    const disk = join(scratch, 'disk')
    await copyFile(await blankDisk(poolDir, DISK_MIB), disk)
    const drives = [
      ['data', disk],
      ['agent', assets.agentDrivePath],
      ['base', image.path],
    ] as const
    await using guest = await bootGuest(scratch, assets, drives, ['wrenn.mtu=1400'])
    const uptime = await guest.health()
    process.stdout.write(`guest kernel ${assets.kernelVersion}: agent answered at uptime ${uptime} s\n`)
    const sh = guest.sh

    expect(await sh('findmnt -no FSTYPE / && echo written > /usr/bin/new-file && cat /usr/bin/new-file')).toBe(
      'overlay\nwritten',
    )
    expect(Number(await sh("df -BM --output=size / | tail -1 | tr -d ' M'"))).toBeGreaterThan(DISK_MIB * 0.92)
    expect(await sh('ip -br -4 addr show eth0')).toMatch(/eth0\s+\S+\s+169\.254\.0\.21\/30/)
    expect(await sh('ip route show default; cat /sys/class/net/eth0/mtu')).toMatch(
      /default via 169\.254\.0\.22 dev eth0\s+1400/,
    )
    expect(await sh('cat /etc/resolv.conf; cat /etc/machine-id | wc -c; hostname')).toBe(
      'nameserver 169.254.0.22\n0\ncapsule',
    )
    expect(await sh('touch /.wrenn/x 2>&1; touch /.wrenn/data/state/x && ls /.wrenn/data/state')).toMatch(
      /Read-only file system\nx$/,
    )
    expect(await sh('su user -c "ls /.wrenn/data/upper" 2>&1 | grep -c "Permission denied"')).toBe('1')
    expect(
      await sh(
        'cd /sys/fs/cgroup && mkdir t && echo 20000000 > t/memory.max && cat t/memory.max t/pids.max && cat cgroup.subtree_control',
      ),
    ).toMatch(/^19996672\nmax\n(?=.*cpu)(?=.*memory)(?=.*pids)/)
    expect(await sh('findmnt -no OPTIONS /sys/fs/cgroup')).toContain('favordynmods')

    expect(await sh('python --version && python3 -c "import ssl, sqlite3, json; print(1)"')).toMatch(
      /^Python 3\.11\.\d+\n1$/,
    )
    expect(
      await sh('git --version && ls /usr/lib/git-core/git-daemon && which curl wget tput setfattr ip ps'),
    ).toContain('/usr/bin/tput')
    expect(
      await sh(
        'su - user -c "id -un; sudo -n id -un; locale | grep LC_ALL; python3 -c \'import os; print(os.getcwd())\'"',
      ),
    ).toMatch(/^user\nroot\n[\s\S]*\/home\/user$/)
    expect(
      await sh(
        'dd if=/dev/zero of=/tmp/f bs=1M count=8 status=none && mv /usr/share/perl5 /usr/share/perl5-x && ls -d /usr/share/perl5-x',
      ),
    ).toBe('/usr/share/perl5-x')
    expect(await sh('cat /sys/devices/system/clocksource/clocksource0/current_clocksource')).toBe('tsc')

    // Double-forked orphans: PID 1 collects them, so none stays a zombie.
    await sh(
      'for i in 1 2 3 4 5; do (sh -c "exit 0" & exec sleep 0.1) & done; for i in 1 2 3; do (setsid sh -c "sleep 0.2 & exit" &); done',
    )
    await waitFor(async () => ((await sh('ps -eo stat= | grep -c ^Z || true')) === '0' ? true : undefined), {
      timeoutMs: 20_000,
      intervalMs: 250,
      what: 'zombies to be collected',
    })

    await checkModules(sh)
    await checkPlainFolders(sh)

    // The agent dies: PID 1 starts it again and says so on the console.
    const before = await sh('echo $PPID')
    await sh('kill -9 $PPID').catch(() => {}) // the connection dies with the agent
    await guest.health()
    expect(await sh('echo $PPID')).not.toBe(before)
    expect(guest.console()).toContain('the guest agent ended with status 137')
  })

  it('loads modules in an image that keeps /lib apart and has no modprobe, and leaves what it brings in sight', async () => {
    const tree = join(scratch, 'split')
    for (const folder of ['bin', 'lib/modules', 'etc', 'var/lib/docker/overlay2'])
      await mkdir(join(tree, folder), { recursive: true })
    await copyFile(join(poolDir, 'layers', (await bootIndex()).busyboxDigest), join(tree, 'bin/busybox'))
    await writeFile(join(tree, 'bin/bash'), '#!/bin/busybox sh\nexec /bin/busybox sh "$@"\n')
    for (const program of ['busybox', 'bash']) await chmod(join(tree, 'bin', program), 0o755)
    const base = join(scratch, 'split.ext4')
    await createLayer(tree, base, { role: 'base', epochSeconds: 1_700_000_000 })
    const disk = join(scratch, 'split-disk')
    await copyFile(await blankDisk(poolDir, DISK_MIB), disk)
    const drives = [
      ['data', disk],
      ['agent', assets.agentDrivePath],
      ['base', base],
    ] as const
    await using guest = await bootGuest(scratch, assets, drives, [])
    await guest.health()
    expect(
      await guest.sh(
        'cat /proc/sys/kernel/modprobe; busybox ls /lib/modules/$(busybox uname -r)/kernel | busybox head -1',
      ),
    ).toBe('/.wrenn/bin/modprobe\narch')
    expect(await guest.sh('busybox ip link add d0 type dummy && busybox lsmod | busybox grep -c "^dummy "')).toBe('1')
    expect(await guest.sh('busybox ls /var/lib/docker; busybox ls /var/lib/containers | busybox wc -l')).toBe(
      'overlay2\n0',
    )
  })
})

type Shell = Guest['sh']

/** By name, and by use: what asks for a driver need not know that it is a module. */
async function checkModules(sh: Shell): Promise<void> {
  const names = ['tun', 'fuse', 'wireguard', 'overlay', 'bridge', 'veth', 'nf_tables', 'br_netfilter', 'loop', 'btrfs']
  expect(
    await sh(
      'stat -c "%a %n" /dev/fuse /dev/net/tun /dev/loop-control; lsmod | grep -cE "^(tun|veth|bridge) " || true',
    ),
  ).toBe('666 /dev/fuse\n666 /dev/net/tun\n600 /dev/loop-control\n0')
  expect(
    await sh(
      'su user -c "exec 3<>/dev/net/tun" && ip link add v0 type veth peer name v1 && ip link add b0 type bridge',
    ),
  ).toBe('')
  expect(await sh('lsmod | grep -cE "^(tun|veth|bridge) "')).toBe('3')
  for (const name of names)
    await sh(`modprobe ${name} && { grep -qw ${name} /proc/modules || modinfo ${name} | grep -q builtin; }`)
  expect(
    await sh('ip link add wg0 type wireguard && ip -br link show wg0 | wc -l; grep -cw fuse /proc/filesystems'),
  ).toBe('1\n1')
  // It is a folder like any other: headers of a kernel, and modules of one's own, go there.
  expect(
    await sh(
      'cd /lib/modules/$(uname -r) && echo mine >extra.ko && mv extra.ko updates.ko && cat updates.ko && rm updates.ko && pwd -P',
    ),
  ).toMatch(/^mine\n\/usr\/lib\/modules\//)
}

async function checkPlainFolders(sh: Shell): Promise<void> {
  expect(await sh('findmnt -no FSTYPE,PROPAGATION /swap; findmnt -no PROPAGATION /')).toBe('ext4   shared\nshared')
  expect(
    await sh(
      'fallocate -l 64M /swap/file && chmod 600 /swap/file && mkswap -q /swap/file && swapon /swap/file && grep SwapTotal /proc/meminfo && swapoff /swap/file && rm /swap/file',
    ),
  ).toMatch(/^SwapTotal: +6553\d kB$/)
  for (const folder of ['/var/lib/docker', '/var/lib/containers', '/var/lib/containerd']) {
    const layers = `${folder}/l ${folder}/u ${folder}/w ${folder}/m`
    await sh(
      `mkdir ${layers} && mount -t overlay -o lowerdir=${folder}/l,upperdir=${folder}/u,workdir=${folder}/w x ${folder}/m && umount ${folder}/m && rm -r ${layers}`,
    )
  }
}

interface Guest extends AsyncDisposable {
  health(): Promise<string>
  sh(command: string): Promise<string>
  console(): string
  ended(): Promise<void>
}

async function bootGuest(
  scratch: string,
  assets: BootAssets,
  drives: readonly (readonly [string, string])[],
  extraArgs: readonly string[],
): Promise<Guest> {
  const port = await freePort()
  const dir = await mkdtemp(join(scratch, 'vm-'))
  const machine = 'q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off,smm=off,graphics=off,memory-backend=ram'
  const net = `user,id=n,net=169.254.0.20/30,host=169.254.0.22,dhcpstart=169.254.0.21,hostfwd=tcp:127.0.0.1:${port}-169.254.0.21:49983`
  const args = ['qemu-system-x86_64', '-no-user-config', '-nodefaults', '-display', 'none', '-no-reboot']
  args.push('-machine', machine, '-accel', 'tcg', '-cpu', 'max,la57=off', '-smp', '1', '-m', '512M')
  args.push('-object', `memory-backend-file,id=ram,mem-path=${dir}/mem,size=512M,share=on`)
  args.push('-kernel', assets.kernelPath, '-initrd', assets.initrdPath)
  args.push('-append', ['console=ttyS0', 'panic=-1', 'quiet', 'loglevel=4', ...kernelArgs, ...extraArgs].join(' '))
  for (const [serial, path] of drives) {
    const mode = serial === 'data' ? 'discard=unmap' : 'readonly=on'
    args.push('-drive', `if=none,id=${serial},file=${path},format=raw,${mode}`)
    args.push('-device', `virtio-blk-pci,drive=${serial},serial=${serial}`)
  }
  args.push('-netdev', net, '-device', 'virtio-net-pci,netdev=n,mac=02:57:52:00:00:05,romfile=')
  args.push('-device', 'vmgenid,guid=auto', '-serial', 'stdio')
  const child = spawn('timeout', ['900', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  return guestHandle(child, `http://127.0.0.1:${port}`, () => output)
}

function guestHandle(child: ChildProcess, url: string, console: () => string): Guest {
  const fetchText = async (path: string, init: RequestInit, timeoutMs: number): Promise<string> => {
    const response = await fetch(url + path, { ...init, signal: AbortSignal.timeout(timeoutMs) })
    return await response.text()
  }
  const sh = async (command: string): Promise<string> => {
    const answer: unknown = JSON.parse(await fetchText('/run', { method: 'POST', body: command }, 30_000))
    expect(answer, command).toMatchObject({ status: 0 })
    return String((answer as { stdout: string }).stdout).trim() // shape fixed by STAND_IN
  }
  const health = async (): Promise<string> => {
    const probe = async (): Promise<string | undefined> => {
      if (child.exitCode !== null) throw new Error(`The guest ended: ${console()}`)
      return await fetchText('/health', {}, 2_000).catch(() => undefined)
    }
    const text = await waitFor(probe, { timeoutMs: 90_000, intervalMs: 100, what: 'the agent to answer' })
    return text.split(' ')[0] ?? ''
  }
  const ended = async (): Promise<void> => {
    if (child.exitCode === null) await new Promise((done) => child.once('close', done))
  }
  const dispose = async (): Promise<void> => {
    await stopChild(child)
  }
  return { health, sh, console, ended, [Symbol.asyncDispose]: dispose }
}
