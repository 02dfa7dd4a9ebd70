import { connect, createServer, type Server, type Socket } from 'node:net'
import { silentLogger } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { freshDatabase } from '../testing/harness.js'
import { type Db, openDatabase } from './database.js'
import { Notifications } from './notifications.js'

let postgres: TestPostgres
let url: string
let db: Db
let notifications: Notifications
let heard: string[]
let gaps: number

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  url = await freshDatabase(postgres.url)
  db = openDatabase({ url })
})
afterEach(async () => {
  await notifications.stop()
  await db.destroy()
})

async function listening(through = url): Promise<void> {
  heard = []
  gaps = 0
  notifications = new Notifications({ url: through, logger: silentLogger, beatMs: 20 })
  notifications.listen(
    'news',
    (payload) => heard.push(payload),
    () => gaps++,
  )
  notifications.start()
  await expect.poll(() => notifications.isFresh).toBe(true)
}

async function tell(payload: string): Promise<void> {
  await sql`SELECT pg_notify('news', ${payload})`.execute(db)
}

async function backends(): Promise<number[]> {
  const { rows } = await sql<{ pid: number }>`SELECT pid FROM pg_stat_activity
    WHERE application_name = 'wrenn-control-plane-changes' AND datname = current_database()`.execute(db)
  return rows.map(({ pid }) => pid)
}

describe('notifications', () => {
  it('are told as they are committed, on one connection', async () => {
    await listening()
    await tell('one')
    await db.transaction().execute(async (tx) => {
      await sql`SELECT pg_notify('news', 'two')`.execute(tx)
      expect(heard).not.toContain('two')
    })
    await expect.poll(() => heard).toEqual(['one', 'two'])
    expect(gaps).toBe(1)
    expect(await backends()).toHaveLength(1)
  })

  it('are not fresh while the connection is broken, and say that some may be missing when it is there again', async () => {
    await listening()
    const [pid = 0] = await backends()
    await sql`SELECT pg_terminate_backend(${pid})`.execute(db)
    await expect.poll(() => notifications.isFresh).toBe(false)
    await tell('lost')
    await expect.poll(() => notifications.isFresh).toBe(true)
    expect(gaps).toBe(2)
    await tell('heard')
    await expect.poll(() => heard).toEqual(['heard'])
  })

  it('are not fresh on a connection that is dead without a sign, and find a living one', async () => {
    await using line = await Line.to(url)
    await listening(line.url)
    line.cut()
    await expect.poll(() => notifications.isFresh).toBe(false)
    line.mend()
    await expect.poll(() => notifications.isFresh).toBe(true)
    expect(gaps).toBe(2)
  })

  it('are never fresh where they do not come through', async () => {
    await using line = await Line.to(url, (text) => text.replaceAll('LISTEN', 'NOTIFY'))
    heard = []
    notifications = new Notifications({ url: line.url, logger: silentLogger, beatMs: 20 })
    let connected = false
    notifications.listen(
      'news',
      () => {},
      () => {
        connected = true
      },
    )
    notifications.start()
    await expect.poll(() => connected).toBe(true)
    await tell('nobody hears')
    expect(notifications.isFresh).toBe(false)
  })
})

/** A way to the server that can fall silent without a word, and change what is said on it. */
class Line implements AsyncDisposable {
  readonly url: string
  readonly #server: Server
  readonly #ends: Set<Socket>

  private constructor(server: Server, ends: Set<Socket>, url: string) {
    this.#server = server
    this.#ends = ends
    this.url = url
  }

  static async to(url: string, change: (text: string) => string = (text) => text): Promise<Line> {
    const { pathname, searchParams, username } = new URL(url.replace('@/', '@localhost/'))
    const socketPath = `${searchParams.get('host')}/.s.PGSQL.${searchParams.get('port') ?? '5432'}`
    const ends = new Set<Socket>()
    const server = createServer((client) => {
      const upstream = connect(socketPath)
      for (const end of [client, upstream]) {
        ends.add(end)
        end.on('error', () => {})
        end.on('close', () => {
          client.destroy()
          upstream.destroy()
        })
      }
      client.on('data', (data) => upstream.write(Buffer.from(change(data.toString('latin1')), 'latin1')))
      upstream.pipe(client)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('it listens on TCP')
    return new Line(server, ends, `postgres://${username}@127.0.0.1:${address.port}${pathname}`)
  }

  /** Those that are there stay open and carry nothing any more. */
  cut(): void {
    for (const end of this.#ends) end.unpipe().pause()
    this.#held = [...this.#ends]
    this.#ends.clear()
  }

  #held: readonly Socket[] = []

  /** New ones were never hindered; the old ones end now. */
  mend(): void {
    for (const end of this.#held) end.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of [...this.#ends, ...this.#held]) end.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}
