import { once } from 'node:events'
import { connect } from 'node:net'
import Fastify from 'fastify'
import { expect, it } from 'vitest'
import { hangUpOf } from './hang-up.js'

it('is known also of a client that left before its request was looked at', async () => {
  const app = Fastify({ forceCloseConnections: true })
  let signal: AbortSignal | undefined
  app.addHook('onRequest', async (request) => {
    // As while the database is asked about a key.
    client.destroy()
    await once(request.raw.socket, 'close')
  })
  app.get('/', async (_request, reply) => {
    signal = hangUpOf(reply)
    return 'nobody reads this'
  })
  const address = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
  const client = connect(Number(address.port), address.hostname)
  client.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  await expect.poll(() => signal?.aborted).toBe(true)
  await app.close()
})
