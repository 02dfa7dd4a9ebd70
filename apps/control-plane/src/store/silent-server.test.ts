import { connect, createServer, type Server, type Socket } from 'node:net'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Db, fromDatabaseError, openDatabase } from './database.js'

let postgres: TestPostgres
/** Between us and the server, as a network that may go dark without closing anything. */
let way: Server
const sockets = new Set<Socket>()
let isDark = false
let db: Db

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  isDark = false
  const [, dir = ''] = /host=([^&]+)/.exec(postgres.url) ?? []
  way = createServer((near) => {
    const far = connect(`${decodeURIComponent(dir)}/.s.PGSQL.5432`)
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from)
      from.on('data', (chunk) => void (isDark || to.write(chunk)))
      from.on('error', () => {})
      from.on('close', () => to.destroy())
    }
  })
  const port = await new Promise<number>((resolve) => {
    way.listen(0, '127.0.0.1', () => resolve((way.address() as { port: number }).port))
  })
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  db = openDatabase({ url, maxConnections: 1, statementTimeoutMs: 300, answerSpareMs: 300 })
})
afterEach(async () => {
  for (const socket of sockets) socket.destroy()
  sockets.clear()
  await db.destroy()
  await new Promise((resolve) => way.close(resolve))
})

const one = async (on: Db = db): Promise<unknown> => (await sql`SELECT 1 AS one`.execute(on)).rows
const failure = async (task: Promise<unknown>) =>
  fromDatabaseError(await task.then(() => undefined).catch((error: unknown) => error))

describe('a server that has gone without a word', () => {
  it('fails what waits for it, and is asked by another connection afterwards', async () => {
    expect(await one()).toEqual([{ one: 1 }])
    isDark = true
    expect(await failure(one())).toMatchObject({ code: 'database_unavailable' })
    isDark = false
    expect(await one()).toEqual([{ one: 1 }])
  })

  it('fails a transaction too, which has no end to wait for', async () => {
    const transaction = db.transaction().execute(async (tx) => {
      await one(tx)
      isDark = true
      await one(tx)
    })
    expect(await failure(transaction)).toMatchObject({ code: 'database_unavailable' })
    isDark = false
    expect(await one()).toEqual([{ one: 1 }])
  })

  it.each(['EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'EAI_AGAIN'])('is away when the network says %s', (code) => {
    const error = Object.assign(new Error(`connect ${code} 10.0.0.1:5432`), { code, syscall: 'connect' })
    expect(fromDatabaseError(error)).toMatchObject({ code: 'database_unavailable' })
  })

  it('is not taken for one that has set itself a longer limit, while that connection is held', async () => {
    await db.connection().execute(async (connection) => {
      await sql`SET statement_timeout = 0`.execute(connection)
      await sql`SELECT pg_sleep(1.5)`.execute(connection)
      await sql`RESET statement_timeout`.execute(connection)
    })
    await expect(sql`SELECT pg_sleep(1.5)`.execute(db)).rejects.toThrow('statement timeout')
  })
})
