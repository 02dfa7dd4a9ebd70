import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'

/**
 * Runs skopeo in a sandbox without a network: what it asks of its proxy, on the sandbox's loopback, goes on to the door's unix socket. The login
 * comes by stdin and lies in the sandbox's own memory. A program of its own, built to one file; it ends as skopeo does.
 */
const [socketPath = '', authority = '', ...skopeo] = process.argv.slice(2)
const LOGIN_FILE = '/tmp/auth.json'
const LOOPBACK = '127.0.0.1'

/** @returns the port */
async function listen(onConnection: (socket: Socket) => void, port: number, address = LOOPBACK): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, onConnection)
  server.listen(port, address)
  await once(server, 'listening')
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new Error('a TCP server has a port')
  return bound.port
}

function join(one: Socket, other: Socket): void {
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    from.on('error', () => to.destroy())
    from.pipe(to)
  }
}

/** Go asks no proxy for loopback addresses: this port is the registry's, and leads to the door all the same. */
function tunnel(socket: Socket): void {
  const door = connect({ path: socketPath, allowHalfOpen: true })
  door.write(`CONNECT ${authority} HTTP/1.1\r\nhost: ${authority}\r\n\r\n`)
  let head = Buffer.alloc(0)
  const onData = (chunk: Buffer): void => {
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end === -1) return
    door.off('data', onData)
    door.pause()
    if (!head.subarray(0, end).toString().startsWith('HTTP/1.1 200')) return void socket.destroy()
    if (head.length > end + 4) socket.write(head.subarray(end + 4))
    join(socket, door)
  }
  door.on('data', onData)
  door.on('error', () => socket.destroy())
  socket.on('error', () => door.destroy())
}

async function main(): Promise<number> {
  const login = await text(process.stdin)
  if (login !== '') await writeFile(LOGIN_FILE, login, { mode: 0o600 })
  const port = await listen((socket) => join(socket, connect({ path: socketPath, allowHalfOpen: true })), 0)
  const [, host = '', ownPort] = /^(localhost|127(?:\.\d+){3}):(\d+)$/.exec(authority) ?? []
  if (ownPort !== undefined) await listen(tunnel, Number(ownPort), host === 'localhost' ? LOOPBACK : host)
  const url = `http://${LOOPBACK}:${port}`
  const env = {
    ...{ PATH: '/usr/bin:/bin', HOME: '/tmp', HTTP_PROXY: url, HTTPS_PROXY: url },
    ...(login === '' ? {} : { REGISTRY_AUTH_FILE: LOGIN_FILE }),
  }
  const child = spawn('skopeo', skopeo, { env, stdio: ['ignore', 'inherit', 'inherit'] })
  const [code] = await once(child, 'close')
  return typeof code === 'number' ? code : 1
}

process.exitCode = await main().catch((error: unknown) => {
  process.stderr.write(`the fetcher failed: ${String(error)}\n`)
  return 1
})
process.exit()
