import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { constants, copyFile, mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'
import { DirectGuest } from './guest.js'
import type { Platform } from './platform.js'

const run = promisify(execFile)
const NAME = 'wbfloor'
/** Outside the platform's range: its rules drop what reaches that from a link that is not its own. */
const ADDRESSES = { host: '10.223.206.1', guest: '10.223.206.2' }

/** A namespace like a capsule's, without its rules: tap and addresses as the snapshot's guest expects them. */
const NETWORK_UP = `set -e
ip netns add ${NAME}
ip link add ${NAME} type veth peer name eth0 netns ${NAME}
ip addr add ${ADDRESSES.host}/30 dev ${NAME}
ip link set ${NAME} up
exec nsenter --net=/run/netns/${NAME} sh -ec '
echo 1 > /proc/sys/net/ipv4/ip_forward
ip tuntap add dev tap0 mode tap
ip link set tap0 address 02:57:52:00:00:16 up
ip addr add 169.254.0.22/30 dev tap0
ip neigh add 169.254.0.21 lladdr 02:57:52:00:00:05 dev tap0 nud permanent
ip link set lo up
ip addr add ${ADDRESSES.guest}/30 dev eth0
ip link set eth0 up
ip route add default via ${ADDRESSES.host}
nft "add table ip floor; add chain ip floor pre { type nat hook prerouting priority -100; }; add rule ip floor pre iifname eth0 dnat to 169.254.0.21; add chain ip floor post { type nat hook postrouting priority 100; }; add rule ip floor post oifname tap0 masquerade"
'`
const NETWORK_DOWN = `ip link del ${NAME} 2>/dev/null; ip netns del ${NAME} 2>/dev/null; exit 0`

export interface RestoredFloor {
  /** From the first clone to running vCPUs. */
  readonly runningMs: number
  readonly guest: DirectGuest
  /** Stops the vCPUs and saves the device state; gives the time that takes. */
  save(): Promise<number>
  end(): Promise<void>
}

/**
 * The floor of the lifecycle: QEMU with the very arguments the platform gave it, on clones of the same template, driven by
 * the least that can drive it. No confinement, no cgroup, no journal, no identity.
 */
export class FloorQemu implements AsyncDisposable {
  readonly #template: string
  readonly #command: readonly string[]
  readonly #scratch: string
  readonly #secret: string
  #serial = 0

  private constructor(template: string, command: readonly string[], scratch: string, secret: string) {
    this.#template = template
    this.#command = command
    this.#scratch = scratch
    this.#secret = secret
  }

  /** Learns the command line from a running capsule that was restored from the template. */
  static async like(platform: Platform, capsuleId: string): Promise<FloorQemu> {
    const { vm, vmId } = (await platform.journal(capsuleId)).resources
    const command = (await readFile(`/proc/${vm.pid}/cmdline`, 'utf8')).split('\0').slice(0, -1)
    const pool = join(platform.dir, 'pool')
    const scratch = join(pool, 'capsules', NAME)
    await rm(scratch, { recursive: true, force: true })
    await mkdir(scratch, { recursive: true })
    await copyFile(join(vm.runDir, 'kernel.stub'), join(scratch, 'kernel.stub')).catch(() => {}) // only some layouts have it
    await run('sh', ['-c', NETWORK_DOWN])
    await run('sh', ['-c', NETWORK_UP])
    const template = await findTemplate(pool, vm.pid)
    const manifest: { secret: string } = JSON.parse(await readFile(join(template, 'manifest.json'), 'utf8'))
    const files = join(pool, 'capsules', vmId, '0')
    const moved = command.map((word) => word.replaceAll(vm.runDir, scratch).replaceAll(files, scratch))
    return new FloorQemu(template, moved, scratch, manifest.secret)
  }

  async restore(): Promise<RestoredFloor> {
    const files = join(this.#scratch, String(this.#serial++))
    await mkdir(files)
    await copyFile(join(this.#scratch, 'kernel.stub'), join(files, 'kernel.stub')).catch(() => {})
    const [, ...args] = this.#command.map((word) => word.replaceAll(this.#scratch, files))
    const bootSocket = join(files, 'boot.sock')
    const server = createServer().listen(bootSocket)
    const monitor = once(server, 'connection')
    const start = performance.now()
    await Promise.all(
      ['mem', 'disk.raw'].map((name) =>
        copyFile(join(this.#template, name), join(files, name), constants.COPYFILE_FICLONE_FORCE),
      ),
    )
    const child = spawn('nsenter', [`--net=/run/netns/${NAME}`, 'qemu-system-x86_64', ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const socket: Socket = await Promise.race([monitor.then(([accepted]) => accepted), lastWords(child)])
    const qmp = new Qmp(socket)
    await qmp.ready
    await qmp.load(join(this.#template, 'state'), join(files, 'load.sock'))
    await qmp.execute('cont')
    const runningMs = performance.now() - start
    server.close()
    const guest = new DirectGuest(ADDRESSES.guest, this.#secret)
    return {
      runningMs,
      guest,
      save: async () => {
        const begin = performance.now()
        await qmp.execute('stop')
        await qmp.save(join(files, 'save.sock'))
        return performance.now() - begin
      },
      end: async () => {
        guest.close()
        const exited = once(child, 'exit')
        child.kill('SIGKILL')
        await exited
        await rm(files, { recursive: true, force: true })
      },
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#scratch, { recursive: true, force: true })
    await run('sh', ['-c', NETWORK_DOWN])
  }
}

/** The template whose memory has the size of the running guest's; the newest when several have. */
async function findTemplate(pool: string, pid: number): Promise<string> {
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8')
  const wanted = Number(/"size":(\d+)/.exec(command)?.[1])
  const found: { dir: string; at: number }[] = []
  for (const name of await readdir(join(pool, 'templates'))) {
    const dir = join(pool, 'templates', name)
    const memory = await stat(join(dir, 'mem')).catch(() => undefined)
    if (memory?.size === wanted && !name.endsWith('.tmp')) found.push({ dir, at: memory.mtimeMs })
  }
  const newest = found.sort((a, b) => b.at - a.at)[0]
  if (newest === undefined) throw new Error(`No template has ${wanted} bytes of memory.`)
  return newest.dir
}

async function lastWords(child: ChildProcess): Promise<never> {
  const said = child.stderr === null ? '' : await text(child.stderr)
  throw new Error(`QEMU ended: ${said}`)
}

/** As little QMP as does it: one command at a time, and the migration's end. */
class Qmp {
  readonly ready: Promise<unknown>
  readonly #socket: Socket
  #answer: ((message: { error?: { desc: string } }) => void) | undefined
  #migrated: (() => void) | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line)
      if (message.event === 'MIGRATION' && message.data.status === 'completed') this.#migrated?.()
      if ('return' in message || 'error' in message) this.#answer?.(message)
    })
    const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state: true }))
    this.ready = this.execute('qmp_capabilities').then(() => this.execute('migrate-set-capabilities', { capabilities }))
  }

  async execute(command: string, args: object = {}): Promise<void> {
    const answer = new Promise<{ error?: { desc: string } }>((resolve) => {
      this.#answer = resolve
    })
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    const { error } = await answer
    if (error) throw new Error(`QEMU refused ${command}: ${error.desc}`)
  }

  async load(statePath: string, socketPath: string): Promise<void> {
    const completed = this.#completed()
    await this.execute('migrate-incoming', { uri: `unix:${socketPath}` })
    await pipeline(createReadStream(statePath), connect(socketPath))
    await completed
  }

  async save(socketPath: string): Promise<void> {
    const completed = this.#completed()
    const server = createServer((socket) => socket.resume()).listen(socketPath)
    await once(server, 'listening')
    await this.execute('migrate', { uri: `unix:${socketPath}` })
    await completed
    server.close()
  }

  #completed(): Promise<void> {
    return new Promise((resolve) => {
      this.#migrated = resolve
    })
  }
}
