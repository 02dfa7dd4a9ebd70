import { once } from 'node:events'
import { createServer } from 'node:http'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createProgram } from '../program.js'

const AT = '2026-11-30T01:00:00.000Z'
/** As the API says it. */
const health = {
  problems: [],
  hosts: [],
  control_plane: { version: '1', started_at: AT, replicas: 1 },
  database: { version: '16', migration: '0001', pending_migrations: 0, latency_ms: 1 },
  mail: { via: 'none', from: 'a@b', waiting: 0, given_up: 0 },
}
let lago: object | undefined
const server = createServer(({ url }, response) => {
  if (url !== '/v1/admin/health') return void response.writeHead(404).end()
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ ...health, ...(lago === undefined ? {} : { lago }) }))
})

describe('wrenn usage lago', () => {
  const said = vi.spyOn(console, 'log')

  beforeAll(async () => {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
  })
  afterAll(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    said.mockRestore()
  })
  beforeEach(() => {
    const address = server.address()
    vi.stubEnv('WRENN_API_URL', `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`)
    vi.stubEnv('WRENN_API_KEY', 'a-key')
    said.mockReset().mockImplementation(() => {})
  })
  afterEach(() => void vi.unstubAllEnvs())

  const run = async (...words: string[]): Promise<unknown> => {
    await createProgram().parseAsync(['usage', 'lago', ...words], { from: 'user' })
    return said.mock.calls.flat().join('\n')
  }

  it('says that nothing waits', async () => {
    lago = { to: 'lago:443', waiting: 0, refused: 0 }
    expect(await run()).toBe('Lago at lago:443 has taken all events.')
  })

  it('says how much waits, since when, and why, and lets nothing of it act on the terminal', async () => {
    lago = { to: 'lago:443', waiting: 1, refused: 1, oldest_waiting_at: AT, problem: 'It says \u001b[2J.' }
    expect(await run()).toBe(
      `1 event waits for Lago at lago:443, the oldest since ${AT}; 1 of them refused by it.\nIt says \\u001b[2J.`,
    )
  })

  it('has it as JSON, as the API says it', async () => {
    lago = { to: 'lago:443', waiting: 5, refused: 2, oldest_waiting_at: AT, problem: 'Lago answered 401.' }
    expect(JSON.parse(String(await run('--json')))).toEqual(lago)
  })

  it('says which setting there has to be where there is no Lago', async () => {
    lago = undefined
    await expect(run()).rejects.toMatchObject({
      code: 'not_supported',
      message: expect.stringContaining('WRENN_LAGO_URL'),
    })
  })
})
