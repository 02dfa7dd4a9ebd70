import { AppError } from '@wrenn/base'
import { processStreamQuerySchema, socketQuerySchema } from '@wrenn/protocol'
import { z } from 'zod'
import type { App, Services } from '../context.js'
import { capsuleParams, errors, processParams } from '../schemas.js'
import { execStream, processStream } from '../sockets/process-socket.js'
import { ptyStream } from '../sockets/pty-socket.js'
import { runSocket } from '../sockets/run-socket.js'

const switching = { 101: z.null().describe('Switched to WebSocket.'), ...errors }

const notUpgraded = async (): Promise<never> => {
  throw new AppError('invalid_request', 'This route is a WebSocket; connect with an upgrade request.')
}

const handshake =
  'JSON text frames. Without a key in the handshake the first message is `{type:"auth", api_key}` within 5 s. With the subprotocol `wrenn.v1.binary` output and input bytes are binary frames: kind (1 byte: 0 input, 1 stdout, 2 stderr, 3 terminal), offset (8 bytes, big endian), bytes.'

/** WebSockets; their frames are the schemas ending in `Frame`. */
export function socketRoutes(app: App, services: Services): void {
  app.route({
    method: 'GET',
    url: '/v1/capsules/:id/exec/stream',
    config: { permission: 'capsules.use', auth: 'socket' },
    schema: {
      tags: ['processes'],
      summary: 'Start a process and follow it (WebSocket).',
      description: `First frame ExecStartFrame, then ProcessInputFrame; answers ProcessOutputFrame. The process goes on when the socket closes: follow it again through its process stream. ${handshake}`,
      params: capsuleParams,
      querystring: socketQuerySchema,
      response: switching,
    },
    handler: notUpgraded,
    wsHandler: (socket, request) => {
      const { id } = capsuleParams.parse(request.params)
      const { states } = socketQuerySchema.parse(request.query)
      runSocket(socket, request, id, services, {
        states: states === 'true',
        run: (connection) => execStream(connection, services),
      })
    },
  })

  app.route({
    method: 'GET',
    url: '/v1/capsules/:id/processes/:selector/stream',
    config: { permission: 'capsules.use', auth: 'socket' },
    schema: {
      tags: ['processes'],
      summary: 'Follow a process (WebSocket).',
      description: `ProcessInputFrame in, ProcessOutputFrame out; from_offset replays output. ${handshake}`,
      params: processParams,
      querystring: processStreamQuerySchema,
      response: switching,
    },
    handler: notUpgraded,
    wsHandler: (socket, request) => {
      const { id, selector } = processParams.parse(request.params)
      const query = processStreamQuerySchema.parse(request.query)
      runSocket(socket, request, id, services, {
        states: query.states === 'true',
        run: (connection) =>
          processStream(connection, services, { selector, fromOffset: query.from_offset, encoding: query.encoding }),
      })
    },
  })

  app.route({
    method: 'GET',
    url: '/v1/capsules/:id/pty',
    config: { permission: 'capsules.use', auth: 'socket' },
    schema: {
      tags: ['processes'],
      summary: 'Open a terminal (WebSocket).',
      description: `First frame PtyStartFrame, then PtyInputFrame; answers PtyOutputFrame. ${handshake}`,
      params: capsuleParams,
      querystring: socketQuerySchema,
      response: switching,
    },
    handler: notUpgraded,
    wsHandler: (socket, request) => {
      const { id } = capsuleParams.parse(request.params)
      const { states } = socketQuerySchema.parse(request.query)
      runSocket(socket, request, id, services, {
        states: states === 'true',
        pingFrame: { type: 'ping' },
        run: (connection) => ptyStream(connection, services),
      })
    },
  })
}
