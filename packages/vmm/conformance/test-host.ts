import { execFile, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { access, chmod, chown, constants, mkdir, mkdtemp, open, rm, rmdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { UndoStack, waitFor } from '@wrenn/base'
import type { NetworkSlot, VmSpec } from '@wrenn/vmm'
import type { TestGuest } from './test-guest.js'

const run = promisify(execFile)

/** Nobody's uid and gid; QEMU runs as them. */
const UID = 200_001
const GUEST_UP_MS = 90_000

/** What this machine lacks for real guests; empty when it has everything. */
export async function missing(): Promise<string[]> {
  const lacks: string[] = []
  if (process.getuid?.() !== 0) lacks.push('root')
  for (const tool of ['qemu-system-x86_64', 'ip', 'nsenter', 'setpriv', 'apt-get', 'cpio', 'xz', 'mkfs.btrfs']) {
    await run('sh', ['-c', 'command -v "$1"', 'sh', tool]).catch(() => lacks.push(tool))
  }
  await access('/dev/net/tun', constants.R_OK).catch(() => lacks.push('/dev/net/tun'))
  return lacks
}

/** Directories, tap devices and cgroups for test guests, on a btrfs of its own as in the product. */
export class TestHost implements AsyncDisposable {
  readonly #undo: UndoStack
  readonly #root: string
  readonly #guest: TestGuest
  readonly #drops = new Map<string, UndoStack>()

  private constructor(root: string, guest: TestGuest, undo: UndoStack) {
    this.#root = root
    this.#guest = guest
    this.#undo = undo
  }

  static async create(guest: TestGuest): Promise<TestHost> {
    await using undo = new UndoStack()
    const root = await mkdtemp('/tmp/wrenn-vmm-')
    await undo.defer(() => rm(root, { recursive: true }))
    await chmod(root, 0o711)
    const image = join(root, 'pool.img')
    await run('truncate', ['-s', '6G', image])
    await run('mkfs.btrfs', ['-q', image])
    await mkdir(join(root, 'pool'))
    await run('mount', ['-o', 'loop', image, join(root, 'pool')])
    await undo.defer(() => run('umount', [join(root, 'pool')]))
    await chmod('/dev/net/tun', 0o666) // as udev leaves it
    return new TestHost(root, guest, undo.move())
  }

  async makeSpec(overrides: Partial<VmSpec> = {}): Promise<VmSpec> {
    const tag = randomBytes(3).toString('hex')
    await using undo = new UndoStack()
    const [pool, runDir] = [join(this.#root, 'pool', tag), join(this.#root, `run-${tag}`)]
    for (const folder of [pool, runDir]) {
      await mkdir(folder, { mode: 0o700 })
      await undo.defer(() => rm(folder, { recursive: true, force: true }))
      await chown(folder, UID, UID)
    }
    await makeDisk(join(pool, 'disk.raw'))
    const network = await makeSlot(`wt-${tag}`, undo)
    const cgroups = await makeCgroups(`wrenn-test-${tag}`, undo)
    const { kernelPath, initrdPath } = this.#guest
    this.#drops.set(runDir, undo.move())
    return {
      id: `cl-test${tag}`,
      hardware: { machine: 'pc-q35-7.2', cpu: 'tcg-1', layout: 1 },
      vcpus: 1,
      memoryMib: 256,
      kernel: { kernelPath, initrdPath, args: [] },
      layers: [{ role: 'base', path: kernelPath }],
      disk: { path: join(pool, 'disk.raw') },
      memoryPath: join(pool, 'mem'),
      network,
      runDir,
      confinement: { uid: UID, gid: UID, cgroups },
      ...overrides,
    }
  }

  async dropSpec(spec: VmSpec): Promise<void> {
    await this.#drops.get(spec.runDir)?.[Symbol.asyncDispose]()
    this.#drops.delete(spec.runDir)
  }

  /** Runs a shell script inside the guest and gives what it printed. */
  async inGuest(spec: VmSpec, script: string): Promise<string> {
    const ask = () => this.#tryInGuest(spec, script)
    return waitFor(ask, { timeoutMs: GUEST_UP_MS, intervalMs: 20, what: 'the test guest to answer' })
  }

  /** Lets a script end the guest; there is no answer to wait for. */
  async endGuest(spec: VmSpec, script: string): Promise<void> {
    // The answer must leave before the guest does: nobody would close the connection.
    await this.inGuest(spec, `(sleep 1; ${script}) >/dev/null 2>&1 &`)
  }

  async #tryInGuest(spec: VmSpec, script: string): Promise<string | undefined> {
    const enter = ['netns', 'exec', spec.network?.namespace ?? '', this.#guest.busyboxPath]
    const client = spawn('ip', [...enter, 'nc', '-w', '2', '169.254.0.21', '7000'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    client.stdin.on('error', () => {}) // the guest does not listen yet
    client.stdin.end(`${script}\necho wrenn-end\nexit\n`)
    const giveUp = setTimeout(() => client.kill('SIGKILL'), GUEST_UP_MS)
    let text = ''
    for await (const chunk of client.stdout) {
      text += String(chunk)
      if (text.includes('wrenn-end\n')) break
    }
    clearTimeout(giveUp)
    client.kill('SIGKILL')
    const end = text.indexOf('wrenn-end\n')
    return end < 0 ? undefined : text.slice(0, end).trim()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const drop of this.#drops.values()) await drop[Symbol.asyncDispose]()
    await this.#undo[Symbol.asyncDispose]()
  }
}

async function makeDisk(path: string): Promise<void> {
  await using file = await open(path, 'w', 0o600)
  await file.truncate(64 * 1024 * 1024)
  await file.chown(UID, UID)
}

async function makeSlot(namespace: string, undo: UndoStack): Promise<NetworkSlot> {
  await run('ip', ['netns', 'add', namespace])
  await undo.defer(() => run('ip', ['netns', 'del', namespace]))
  const ip = (...args: string[]) => run('ip', ['-n', namespace, ...args])
  await ip('tuntap', 'add', 'dev', 'tap0', 'mode', 'tap', 'user', String(UID))
  await ip('addr', 'add', '169.254.0.22/30', 'dev', 'tap0')
  await ip('link', 'set', 'tap0', 'up')
  return { namespace, tap: 'tap0', mac: '02:57:52:00:00:05' }
}

async function makeCgroups(name: string, undo: UndoStack): Promise<string[]> {
  const v1 = await access('/sys/fs/cgroup/memory').then(
    () => true,
    () => false,
  )
  const cgroups = v1 ? [`/sys/fs/cgroup/memory/${name}`, `/sys/fs/cgroup/pids/${name}`] : [`/sys/fs/cgroup/${name}`]
  for (const cgroup of cgroups) {
    await mkdir(cgroup)
    await undo.defer(() => rmdir(cgroup))
  }
  return cgroups
}
