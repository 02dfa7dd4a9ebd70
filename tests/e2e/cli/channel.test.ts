import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import { verifyWebhook } from '@wrenn/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { type CommandResult, collect, spawnWrenn, wrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
const requests: { readonly headers: IncomingHttpHeaders; readonly body: string }[] = []
const server = createServer(async (request, response) => {
  let body = ''
  for await (const chunk of request) body += chunk
  requests.push({ headers: request.headers, body })
  response.writeHead(204).end()
})
let url: string

beforeAll(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/hook`
})
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const run = (...args: string[]): Promise<CommandResult> => wrenn(platform, ['channel', ...args])
async function made(...args: string[]): Promise<Record<string, string>> {
  const { code, stdout, stderr } = await run(...args, '--json')
  expect([code, stderr]).toEqual([0, expect.any(String)])
  return JSON.parse(stdout)
}

describe('wrenn channel', () => {
  it('has what happens to a real capsule sent to a webhook, signed, and shows the log', async () => {
    const { id = '', secret = '' } = await made(
      'add',
      'ours',
      'webhook',
      '--set',
      `url=${url}`,
      '--events',
      'capsule.created,capsule.state:running',
    )
    expect(JSON.parse(requests[0]?.body ?? '{}')).toMatchObject({ event: 'channel.test' })
    const capsule = await api.create()
    const mine = async () => {
      const events = await Promise.all(requests.slice(1).map((request) => verifyWebhook(request, secret)))
      const types = events.filter(({ resource }) => resource.id === capsule.id).map(({ event }) => event)
      return types.length === 2 ? types : undefined
    }
    expect(await eventually('the events to come', mine)).toEqual(['capsule.created', 'capsule.state'])
    await capsule.destroy()
    expect((await run('ls')).stdout).toMatch(new RegExp(`${id} +ours +webhook +127\\.0\\.0\\.1:\\d+`))
    const log = await run('log', id, '--state', 'delivered')
    expect(log.stdout).toContain(capsule.id)
    expect(log.stdout).not.toContain(secret)
    expect((await run('test', id)).stdout).toContain('It was taken')
    const rotated = await made('rotate', id)
    expect(rotated.secret).not.toBe(secret)
    await run('update', id, '--off', '--name', 'theirs')
    expect((await run('ls')).stdout).toMatch(new RegExp(`${id} +theirs .* off `))
    expect((await run('rm', id)).code).toBe(0)
    expect(await run('test', id)).toMatchObject({ code: 1, stderr: expect.stringContaining('channel_not_found') })
  })

  it('reads what is secret from its input, and saves nothing that a target does not take', async () => {
    const child = spawnWrenn(platform, ['channel', 'add', 'chat', 'slack'])
    const { code, stderr } = await collect(child, Buffer.from('https://127.0.0.2/services/a/b/c\n'))
    expect([code, stderr]).toEqual([1, expect.stringContaining('target_refused')])
    expect(await run('add', 'chat', 'pager')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('webhook, discord'),
    })
    expect((await run('ls', '--json')).stdout.trim()).toBe('[]')
  })
})
