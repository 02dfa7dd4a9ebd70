import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { AppError } from '@wrenn/base'
import { GUEST_AGENT_PORT, LEASE_PROTOCOL, parseLeasePath, parseTunnelPath, TUNNEL_PROTOCOL } from '@wrenn/protocol'
import { answerTunnel, refuseTunnel, switched } from '../fake-tunnel.js'
import { knownCapsule } from './fake-lifecycle.js'
import type { FakeHostState } from './fake-state.js'

/** Tunnels to ports of capsules; every capsule of the fake host has the ports of this machine's loopback. */
export function createFakeTunnels(host: FakeHostState): Server {
  const server = createServer((_request, response) => void response.writeHead(404).end())
  server.on('upgrade', ({ url = '', headers }, socket: Socket) => {
    if (headers.upgrade === LEASE_PROTOCOL) lease(host, url, socket)
    else void serve(host, url, socket)
  })
  return server
}

async function serve(host: FakeHostState, path: string, socket: Socket): Promise<void> {
  try {
    const { capsuleId = '', port = 0 } = parseTunnelPath(path) ?? {}
    const capsule = knownCapsule(host, capsuleId).usable()
    host.tunnels++
    const service = await answerTunnel(socket, TUNNEL_PROTOCOL, port === GUEST_AGENT_PORT ? host.agentPort : port)
    if (service !== undefined) capsule.keepTunnel(service)
  } catch (error) {
    refuseTunnel(socket, error)
  }
}

function lease(host: FakeHostState, path: string, socket: Socket): void {
  socket.on('error', () => {})
  try {
    const capsuleId = host.hasLeases && socket.remoteAddress === undefined ? parseLeasePath(path) : undefined
    if (capsuleId === undefined) throw new AppError('not_found', 'Guests are leased to callers on this machine.')
    const capsule = knownCapsule(host, capsuleId).usable()
    capsule.keepTunnel(socket)
    socket.write(`${switched(LEASE_PROTOCOL)}127.0.0.1\n`)
    socket.on('data', () => {
      capsule.lastActiveAtMs = Date.now()
    })
    socket.pipe(socket)
  } catch (error) {
    refuseTunnel(socket, error)
  }
}
