import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { decodeText, TestSmtp } from '../testing/smtp.js'
import { RefusedForGood } from './delivery.js'
import { createSmtpDelivery, transportOptions } from './smtp.js'

const FROM = 'Wrenn <wrenn@wrenn.example>'
const mail = {
  id: `mail-${'0'.repeat(25)}`,
  to: 'somebody@example.org',
  subject: 'Grüße',
  text: 'a text with ünicode\n',
  html: '<p>HTML</p>',
}

let dir: string
let key: Buffer
let cert: Buffer
let caFile: string
let smtp: TestSmtp | undefined

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-smtp-'))
  caFile = join(dir, 'cert.pem')
  const keyFile = join(dir, 'key.pem')
  const name = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '2',
      '-keyout',
      keyFile,
      '-out',
      caFile,
      ...name,
    ],
    { stdio: 'ignore' },
  )
  key = readFileSync(keyFile)
  cert = readFileSync(caFile)
})
afterAll(async () => {
  await rm(dir, { recursive: true, force: true })
})
afterEach(async () => {
  await smtp?.[Symbol.asyncDispose]()
})

async function send(url: string, trusted?: string): Promise<void> {
  const delivery = createSmtpDelivery({ url, from: FROM, caFile: trusted })
  try {
    await delivery.deliver(mail)
  } finally {
    delivery.close()
  }
}

describe('mail by SMTP', () => {
  it('arrives as text and HTML, from and to whom it should', async () => {
    smtp = await TestSmtp.start({ disabledCommands: ['AUTH', 'STARTTLS'] })
    await send(smtp.url)
    const [{ from, to, raw = '' } = {}] = smtp.mails
    expect({ from, to }).toEqual({ from: 'wrenn@wrenn.example', to: ['somebody@example.org'] })
    expect(raw).toMatch(/^From: Wrenn <wrenn@wrenn\.example>\r$/m)
    expect(raw).toMatch(/^To: somebody@example\.org\r$/m)
    expect(raw).toMatch(/^Message-ID: <mail-0{25}@wrenn\.example>\r$/m)
    expect(raw).toContain('<p>HTML</p>')
    expect(decodeText(raw)).toContain('a text with ünicode')
  })

  it('that is refused for good is told apart from one that may be tried again', async () => {
    smtp = await TestSmtp.start({ disabledCommands: ['AUTH', 'STARTTLS'] })
    smtp.answers.push('never', 'later', 'hang-up')
    await expect(send(smtp.url)).rejects.toThrow(RefusedForGood)
    for (const _ of ['later', 'hang-up']) {
      await expect(send(smtp.url)).rejects.toSatisfy((error) => !(error instanceof RefusedForGood))
    }
    expect(smtp.mails).toEqual([])
    await send(smtp.url)
    expect(smtp.mails).toHaveLength(1)
  })

  it('is refused for good when its address is', async () => {
    smtp = await TestSmtp.start({
      disabledCommands: ['AUTH', 'STARTTLS'],
      onRcptTo: (_address, _session, done) => done(Object.assign(new Error('who?'), { responseCode: 550 })),
    })
    await expect(send(smtp.url)).rejects.toThrow(RefusedForGood)
  })

  it.each([530, 553])(
    'is tried again when the server does not want it of us (%s): the operator mends that',
    async (code) => {
      smtp = await TestSmtp.start({
        disabledCommands: ['AUTH', 'STARTTLS'],
        onMailFrom: (_address, _session, done) => done(Object.assign(new Error('not you'), { responseCode: code })),
      })
      await expect(send(smtp.url)).rejects.toSatisfy((error) => !(error instanceof RefusedForGood))
    },
  )

  it('is tried again when our name and password are wrong: that is not the fault of the mail', async () => {
    smtp = await TestSmtp.start({
      disabledCommands: ['STARTTLS'],
      allowInsecureAuth: true,
      onAuth: ({ password }, _session, done) =>
        password === 'pässwort' ? done(null, { user: 'wrenn' }) : done(new Error('no')),
    })
    const { port } = smtp
    await expect(send(`smtp://wrenn:wrong@127.0.0.1:${port}`)).rejects.toSatisfy(
      (error) => !(error instanceof RefusedForGood),
    )
    await send(`smtp://wrenn:${encodeURIComponent('pässwort')}@127.0.0.1:${port}`)
    expect(smtp.mails).toMatchObject([{ user: 'wrenn' }])
  })

  it('that must be encrypted is not sent to a server that offers no STARTTLS, not even the password', async () => {
    let hasAsked = false
    smtp = await TestSmtp.start({
      disabledCommands: ['STARTTLS'],
      allowInsecureAuth: true,
      onAuth: (_auth, _session, done) => {
        hasAsked = true
        done(null, { user: 'x' })
      },
    })
    await expect(send(`smtp://a:b@127.0.0.1:${smtp.port}?tls=required`)).rejects.toThrow(/STARTTLS|TLS/i)
    expect([hasAsked, smtp.mails]).toEqual([false, []])
  })

  it('goes over to TLS with STARTTLS, to a server whose certificate is trusted and to no other', async () => {
    smtp = await TestSmtp.start({ key, cert, disabledCommands: ['AUTH'] })
    const url = `smtp://localhost:${smtp.port}?tls=required`
    await expect(send(url)).rejects.toThrow(/certificate/i)
    await send(url, caFile)
    expect(smtp.mails).toMatchObject([{ isSecure: true }])
  })

  it('is encrypted from the first byte with smtps', async () => {
    smtp = await TestSmtp.start({ key, cert, secure: true, disabledCommands: ['AUTH'] })
    const url = `smtps://127.0.0.1:${smtp.port}`
    await expect(send(url)).rejects.toThrow(/certificate/i)
    await send(url, caFile)
    expect(smtp.mails).toMatchObject([{ isSecure: true }])
  })
})

describe('how a connection is made', () => {
  it.each([
    ['smtp://mail.example', { host: 'mail.example', port: 587, secure: false, requireTLS: true, ignoreTLS: false }],
    ['smtps://mail.example', { port: 465, secure: true, requireTLS: false, ignoreTLS: false }],
    ['smtp://localhost', { port: 587, secure: false, requireTLS: false, ignoreTLS: true }],
    ['smtp://127.0.0.1:25', { port: 25, secure: false, requireTLS: false, ignoreTLS: true }],
    ['smtp://[::1]:2525', { host: '::1', requireTLS: false, ignoreTLS: true }],
    ['smtp://127.evil.example', { requireTLS: true, ignoreTLS: false }],
    ['smtp://localhost?tls=required', { requireTLS: true, ignoreTLS: false }],
    ['smtp://mail.example?tls=off', { requireTLS: false, ignoreTLS: true }],
    ['smtps://mail.example?tls=off', { secure: true }],
  ])('%s', (url, expected) => {
    expect(transportOptions({ url, from: FROM })).toMatchObject(expected)
  })

  it('is not guessed', () => {
    expect(() => transportOptions({ url: 'smtp://mail.example?tls=maybe', from: FROM })).toThrow(
      'tls is required or off',
    )
  })
})
