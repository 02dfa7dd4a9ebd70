import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { fastify } from 'fastify'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { signsOfWork } from './processing.js'

const app = () => {
  const made = fastify()
  made.get('/', async (request, reply) => {
    using _ = signsOfWork(request, reply, 20)
    await finished.promise
    return { done: true }
  })
  return made
}
let finished: { promise: Promise<unknown>; resolve: (value?: unknown) => void }
let server: ReturnType<typeof app>
let url: string

beforeEach(async () => {
  let resolve: (value?: unknown) => void = () => {}
  finished = { promise: new Promise((done) => (resolve = done)), resolve: (value) => resolve(value) }
  server = app()
  await server.listen({ host: '127.0.0.1', port: 0 })
  url = `http://127.0.0.1:${(server.server.address() as AddressInfo).port}/` // listens on TCP
})
afterEach(async () => {
  await server.close()
})

/** The interim statuses until `enough` have come or the answer has, and the answer. */
async function ask(headers: Record<string, string>, enough: number) {
  const request = httpRequest(url, { headers })
  const interim: number[] = []
  request.on('information', ({ statusCode }) => {
    interim.push(statusCode)
    if (interim.length === enough) finished.resolve()
  })
  request.end()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.resume()
  return { interim, status: response.statusCode }
}

it('says 102 for as long as the work takes to who asked for it', async () => {
  expect(await ask({ prefer: 'wait=5, processing' }, 3)).toEqual({ interim: [102, 102, 102], status: 200 })
})

it('says nothing before the answer to who did not ask', async () => {
  void delay(100).then(() => finished.resolve())
  expect(await ask({ prefer: 'respond-async' }, 1)).toEqual({ interim: [], status: 200 })
})

it('is no answer to fetch', async () => {
  void delay(100).then(() => finished.resolve())
  const response = await fetch(url, { headers: { prefer: 'processing' } })
  expect([response.status, await response.json()]).toEqual([200, { done: true }])
})
