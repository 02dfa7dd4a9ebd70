import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { run } from '../src/host/exec.js'
import type { Slot } from '../src/host/network/index.js'
import { listLinks, listNamespaces } from '../src/host/network/slot.js'

/** Where `serve` listens. */
export const PORT = 7777
/** What runs inside namespaces. */
export const probe = new URL('probe.mjs', import.meta.url).pathname

/** A machine beside the host: `inet` and `other` have a public address, `lan` a private one. */
export const neighbours = {
  inet: { namespace: 'wnetx-inet', host: '198.51.100.1', address: '198.51.100.2' },
  other: { namespace: 'wnetx-other', host: '203.0.113.1', address: '203.0.113.2' },
  lan: { namespace: 'wnetx-lan', host: '10.254.77.1', address: '10.254.77.2' },
}

const into = (namespace: string | undefined, command: readonly string[]): string[] =>
  namespace === undefined ? [...command] : ['nsenter', `--net=/run/netns/${namespace}`, ...command]

/** Runs a probe and gives the JSON it prints. */
export async function ask(namespace: string | undefined, ...args: readonly string[]): Promise<unknown> {
  const [command = '', ...rest] = into(namespace, [process.execPath, probe, ...args])
  return JSON.parse(await run(command, rest))
}

/** A probe that goes on until it is disposed; it is told things by lines and says things by lines of JSON. */
export class Background implements AsyncDisposable {
  readonly child: ChildProcessWithoutNullStreams
  readonly #lines: AsyncIterator<string>

  constructor(namespace: string | undefined, ...args: readonly string[]) {
    const [command = '', ...rest] = into(namespace, [process.execPath, probe, ...args])
    this.child = spawn(command, rest)
    this.#lines = createInterface(this.child.stdout)[Symbol.asyncIterator]()
  }

  async line(): Promise<unknown> {
    const { value, done } = await this.#lines.next()
    return done ? 'ended' : JSON.parse(value)
  }

  async ready(): Promise<void> {
    const line = await this.line()
    if (line !== 'ready') throw new Error(`The probe said ${JSON.stringify(line)}.`)
  }

  say(text: string): void {
    this.child.stdin.write(`${text}\n`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.kill('SIGKILL')
    await once(this.child, 'close')
  }
}

/** Greets and echoes. */
export async function serve(namespace: string | undefined, port = PORT): Promise<Background> {
  const server = new Background(namespace, 'serve', String(port))
  await server.ready()
  return server
}

/** Puts a namespace in the guest's place: the tap becomes a veth with the same name, address and neighbours. */
export async function plugGuest(slot: Slot): Promise<string> {
  const guest = `wnetx-g${slot.index}`
  await run('ip', ['netns', 'add', guest])
  await wireGuest(slot, guest)
  return guest
}

/** Connects a guest to a slot in the place of what was there. */
export async function wireGuest(slot: Slot, guest: string): Promise<void> {
  const lines = [
    'link del tap0',
    `link add tap0 address 02:57:52:00:00:16 type veth peer name eth0 address ${slot.mac} netns ${guest}`,
    'addr add 169.254.0.22/30 dev tap0',
    'link set tap0 up',
  ]
  await run('ip', ['-n', slot.namespace, '-batch', '-'], { input: `${lines.join('\n')}\n` })
  const inside = [
    'link set lo up',
    'addr add 169.254.0.21/30 dev eth0',
    'link set eth0 up',
    'route add default via 169.254.0.22',
  ]
  await run('ip', ['-n', guest, '-batch', '-'], { input: `${inside.join('\n')}\n` })
}

/** Makes the machine. */
export async function plugNeighbour({ namespace, host, address }: (typeof neighbours)['inet']): Promise<void> {
  await run('ip', ['netns', 'add', namespace])
  const lines = [
    `link add ${namespace} type veth peer name eth0 netns ${namespace}`,
    `addr add ${host}/30 dev ${namespace}`,
    `link set ${namespace} up`,
  ]
  await run('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n` })
  const inside = [`addr add ${address}/30 dev eth0`, 'link set eth0 up', `route add default via ${host}`]
  await run('ip', ['-n', namespace, '-batch', '-'], { input: `${inside.join('\n')}\n` })
}

/** Removes namespaces and links of `plugGuest` and `plugNeighbour`, those of a killed run too. */
export async function removeScratch(): Promise<void> {
  for (const { name } of await listLinks()) if (name.startsWith('wnetx-')) await run('ip', ['link', 'del', name])
  for (const name of await listNamespaces()) if (name.startsWith('wnetx-')) await run('ip', ['netns', 'del', name])
}
