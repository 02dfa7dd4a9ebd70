import { once } from 'node:events'
import { createServer } from 'node:net'

/** A port that nobody listens on, for a program that cannot choose one itself. */
export async function freePort(address = '127.0.0.1'): Promise<number> {
  const server = createServer()
  server.listen(0, address)
  await once(server, 'listening')
  const listening = server.address()
  server.close()
  await once(server, 'close')
  if (listening === null || typeof listening === 'string') throw new Error('a TCP server has a port')
  return listening.port
}
