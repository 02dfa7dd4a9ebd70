import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { GUEST_AGENT_PORT, parseTunnelPath, TUNNEL_PROTOCOL } from '@wrenn/protocol'
import { answerTunnel, refuseTunnel } from '../fake-tunnel.js'
import { knownCapsule } from './fake-lifecycle.js'
import type { FakeHostState } from './fake-state.js'

/** Tunnels to ports of capsules; every capsule of the fake host has the ports of this machine's loopback. */
export function createFakeTunnels(host: FakeHostState): Server {
  const server = createServer((_request, response) => void response.writeHead(404).end())
  server.on('upgrade', (request, socket: Socket) => void serve(host, request.url ?? '', socket))
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
