import { mkdtemp, readdir, rm } from 'node:fs/promises'
import type { Server as HttpServer } from 'node:http'
import { createServer, type Http2Server } from 'node:http2'
import type { Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Interceptor } from '@connectrpc/connect'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import { acceptBoth } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'
import { makeDurable, pause } from './fake-lifecycle.js'
import { type FakeRemote, type FakeRemoteCredentials, listenRemotely } from './fake-remote.js'
import { createFakeService } from './fake-service.js'
import { FakeHostState } from './fake-state.js'
import { createFakeTunnels } from './fake-tunnels.js'

/**
 * A host agent for tests: real HostService over real h2c on a unix socket, whose capsules are local processes and a
 * directory. `stop` and `start` are a restart: capsules and their processes survive, connections do not.
 */
export class FakeHost extends FakeHostState implements AsyncDisposable {
  readonly address: string
  #server: Server | undefined
  #serves: readonly [rpc: Http2Server, tunnels: HttpServer] | undefined
  readonly #sockets = new Set<Socket>()

  private constructor(
    dir: string,
    readonly interceptors: Interceptor[],
  ) {
    super(dir)
    this.address = `unix:${join(dir, 'host-agent.sock')}`
  }

  /** @param interceptors of each call that it answers */
  static async start(interceptors: Interceptor[] = []): Promise<FakeHost> {
    const host = new FakeHost(await mkdtemp(join(tmpdir(), 'wrenn-fake-host-')), interceptors)
    await host.start()
    return host
  }

  async start(): Promise<void> {
    const path = join(this.dir, 'host-agent.sock')
    await rm(path, { force: true })
    const { interceptors } = this
    const routes = connectNodeAdapter({
      interceptors,
      routes: (router) => router.service(HostService, createFakeService(this)),
    })
    const rpc = createServer({ settings: { initialWindowSize: 1024 * 1024 } }, routes)
    rpc.on('session', (session) => {
      session.setLocalWindowSize(16 * 1024 * 1024)
      session.on('error', () => {})
    })
    const tunnels = createFakeTunnels(this)
    this.#serves = [rpc, tunnels]
    const server = acceptBoth(rpc, tunnels)
    server.on('connection', (socket) => {
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
    })
    await new Promise<void>((resolve) => server.listen(path, resolve))
    this.#server = server
  }

  /** Another door, on a network, until it is disposed. The host must run. */
  async listenRemotely(credentials: FakeRemoteCredentials): Promise<FakeRemote> {
    if (this.#serves === undefined) throw new Error('the host does not run')
    return await listenRemotely(...this.#serves, credentials)
  }

  async stop(): Promise<void> {
    const server = this.#server
    this.#server = undefined
    if (server === undefined) return
    const closed = new Promise((resolve) => server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    for (const capsule of this.capsules.values()) capsule.forgetRules()
    await closed
  }

  /** The host pauses a capsule by itself, as it does when it runs short. */
  async pauseByItself(id: string, reason: 'memory_pressure' | 'pool_low'): Promise<void> {
    await pause(this, id, reason)
  }

  /** What was saved of a capsule is on the disk now: its paused state, its checkpoints, the snapshots made of it. */
  async makeDurable(id: string): Promise<void> {
    await makeDurable(this, id)
  }

  /** Names below the host's directory that belong to a capsule. */
  async namesOf(id: string): Promise<string[]> {
    return (await readdir(this.dir, { recursive: true })).filter((name) => name.includes(id))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
    for (const id of [...this.capsules.keys()]) await this.remove(id)
    await rm(this.dir, { recursive: true, force: true })
  }
}
