import { silentLogger, waitFor } from '@wrenn/base'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Db, migrateUp, openDatabase } from '../store/database.js'
import { takeMails } from '../store/mails.js'
import { linkIn, TestSmtp } from '../testing/smtp.js'
import type { Delivery } from './delivery.js'
import { linksBelow, Mailer, MailSender } from './index.js'
import { createSmtpDelivery } from './smtp.js'

const mailer = new Mailer()
const reset = { kind: 'password-reset', to: 'somebody@example.org', name: 'Somebody', token: 'the-token' } as const
let postgres: TestPostgres
let db: Db
let smtp: TestSmtp
const senders: MailSender[] = []

beforeAll(async () => {
  postgres = await startTestPostgres()
  db = openDatabase({ url: postgres.url })
  await migrateUp(db)
}, 60_000)
afterAll(async () => {
  await db.destroy()
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  smtp = await TestSmtp.start({ disabledCommands: ['AUTH', 'STARTTLS'] })
})
afterEach(async () => {
  for (const sender of senders.splice(0)) await sender.stop()
  await db.deleteFrom('mails').execute()
  await smtp[Symbol.asyncDispose]()
})

function startSender(
  how: Delivery | 'none' = createSmtpDelivery({ url: smtp.url, from: 'wrenn@wrenn.example' }),
): MailSender {
  const delivery = how === 'none' ? undefined : how
  const links = linksBelow('https://wrenn.example')
  const sender = new MailSender({ db, delivery, links, logger: silentLogger, lookEveryMs: 20, firstDelayMs: 50 })
  senders.push(sender)
  sender.start()
  return sender
}

const inMs = (ms: number): string => new Date(Date.now() + ms).toISOString()
const leave = async (tx: Db = db, expiresAt = inMs(60_000)): Promise<void> =>
  await mailer.send(tx, { ...reset, expiresAt })
const rows = async () => await db.selectFrom('mails').selectAll().execute()
const hasNone = async (): Promise<true | undefined> => ((await rows()).length === 0 ? true : undefined)
const allSent = async () => await waitFor(hasNone, { timeoutMs: 20_000, what: 'the mails to be sent' })
const givenUp = async () =>
  await waitFor(async () => (await rows()).find((row) => row.given_up_at !== null), {
    timeoutMs: 20_000,
    what: 'a mail to be given up',
  })

describe('mails', () => {
  it('are sent once what they tell of is committed, and nothing of them stays', async () => {
    startSender()
    await db.transaction().execute(async (tx) => {
      await leave(tx)
      expect(await rows()).toEqual([])
    })
    await allSent()
    expect(smtp.mails).toHaveLength(1)
    const [mail] = smtp.mails
    expect(mail?.to).toEqual(['somebody@example.org'])
    if (mail !== undefined) expect(linkIn(mail).href).toBe('https://wrenn.example/reset-password#token=the-token')
  })

  it('are not sent when the change was not made', async () => {
    const change = db.transaction().execute(async (tx) => {
      await leave(tx)
      throw new Error('no')
    })
    await expect(change).rejects.toThrow('no')
    expect(await rows()).toEqual([])
  })

  it('are refused at once when they are for more than one plain address', async () => {
    for (const to of ['a@b, c@d', 'a@b\r\nBcc: c@d', 'A <a@b>']) {
      await expect(mailer.send(db, { kind: 'account-deleted', to, name: 'A' })).rejects.toMatchObject({
        code: 'invalid_request',
      })
    }
    expect(await rows()).toEqual([])
  })

  it('are tried again when the server cannot take them now, or dies in the middle', async () => {
    smtp.answers.push('later', 'hang-up', 'later')
    await leave()
    startSender()
    await allSent()
    expect(smtp.mails).toHaveLength(1)
  })

  it('wait for a server that is not there', async () => {
    const { url } = smtp
    await smtp[Symbol.asyncDispose]()
    await leave()
    startSender(createSmtpDelivery({ url, from: 'wrenn@wrenn.example' }))
    const row = await waitFor(async () => (await rows()).find(({ attempts }) => attempts > 2), {
      timeoutMs: 20_000,
      what: 'attempts',
    })
    expect(row).toMatchObject({ given_up_at: null, reason: expect.stringContaining('ECONNREFUSED') })
  })

  it('are given up when they are refused for good: why stays, what they said goes', async () => {
    smtp.answers.push('never')
    await leave()
    startSender()
    expect(await givenUp()).toMatchObject({
      data: null,
      attempts: 1,
      reason: expect.stringContaining('no such mailbox'),
    })
    expect(smtp.mails).toEqual([])
  })

  it('are given up when their time is over', async () => {
    await leave(db, inMs(-1))
    startSender()
    expect(await givenUp()).toMatchObject({ data: null })
    expect(smtp.mails).toEqual([])
  })

  it('are each sent once by several senders', async () => {
    for (let sent = 0; sent < 40; sent++) await leave()
    for (let sender = 0; sender < 4; sender++) startSender()
    await allSent()
    expect(smtp.mails).toHaveLength(40)
    expect(new Set(smtp.mails.map(({ raw }) => /^Message-ID: (.*)\r$/m.exec(raw)?.[1]))).toHaveLength(40)
  })

  it('are left by who cannot send them to who can, and are given up by both when their time is over', async () => {
    await leave()
    await leave(db, inMs(-1))
    startSender('none')
    expect(await givenUp()).toMatchObject({ data: null, reason: expect.stringContaining('No control plane') })
    expect((await rows()).filter((row) => row.data !== null)).toMatchObject([{ attempts: 0, given_up_at: null }])
    startSender()
    await waitFor(async () => smtp.mails[0], { timeoutMs: 20_000, what: 'the mail' })
    expect(smtp.mails).toHaveLength(1)
  })

  it('of a sender that died are sent by another one', async () => {
    await leave()
    expect(await takeMails(db, 10, 60_000)).toHaveLength(1)
    expect(await takeMails(db, 10, 60_000)).toEqual([])
    await sql`UPDATE mails SET next_at = now()`.execute(db)
    startSender()
    await allSent()
    expect(smtp.mails).toHaveLength(1)
  })

  it('of a kind that only a newer version knows wait for it', async () => {
    await leave()
    await sql`UPDATE mails SET kind = 'toString'`.execute(db)
    startSender()
    const row = await waitFor(async () => (await rows()).find(({ reason }) => reason !== null), {
      timeoutMs: 20_000,
      what: 'a look at it',
    })
    expect(row).toMatchObject({ given_up_at: null })
    expect(row.next_at.getTime()).toBeGreaterThan(Date.now() + 60_000)
  })
})
