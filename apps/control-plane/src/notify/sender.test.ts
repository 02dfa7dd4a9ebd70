import { createHmac, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { ChatServer, chatRules } from '@wrenn/testkit'
import { afterEach, describe, expect, it } from 'vitest'
import { serve } from '../testing/proxied.js'
import { parseNetworks } from './address-rule.js'
import type { Message } from './provider.js'
import { providers } from './providers/index.js'
import { Sender } from './sender.js'

const NASTY = '*b* _i_ ~s~ `c` <!channel> <@1> @everyone <users/all> [x](http://y) <b>h</b> & "q" \\ ||z||'
const kinds = ['discord', 'slack', 'teams', 'google_chat', 'telegram', 'matrix'] as const

const owned: AsyncDisposable[] = []
const senders: Sender[] = []
afterEach(async () => {
  for (const sender of senders.splice(0)) sender.close()
  for (const each of owned.splice(0)) await each[Symbol.asyncDispose]()
})

function keep<T extends AsyncDisposable>(each: T): T {
  owned.push(each)
  return each
}
function newSender(allowed = '127.0.0.1', timeoutMs = 30_000): Sender {
  const sender = new Sender({ allowed: parseNetworks(allowed) ?? [], timeoutMs })
  senders.push(sender)
  return sender
}
function message(data: Message['data'] = { name: 'box', state: 'paused' }): Message {
  const id = randomUUID()
  return {
    ...{ id, event: 'capsule.state', timestamp: '2026-01-02T03:04:05.000Z', team_id: 'team-1' },
    ...{ resource: { type: 'capsule', id: 'cl-1' }, data },
  }
}

describe.each(kinds)('%s', (kind) => {
  const provider = providers[kind]

  async function start() {
    const chat = keep(await ChatServer.start(chatRules[kind]))
    const sender = newSender()
    const config = provider.parse(chat.config, sender.guard)
    return { chat, sender, config, send: (text = message()) => sender.send(kind, config, text) }
  }

  it('shows what happened, and the name as it is, whatever marks are in it', async () => {
    const { chat, send } = await start()
    expect((await send()).verdict.kind).toBe('delivered')
    expect(chat.shown[0]).toContain('Capsule box is paused.')
    expect(chat.shown[0]).toContain('2026-01-02T03:04:05.000Z')
    expect((await send(message({ name: NASTY, state: 'running' }))).verdict.kind).toBe('delivered')
    expect(chat.shown[1]).toContain(`Capsule ${NASTY} is running.`)
    expect(chat.shown[1]).not.toMatch(/\[(?:call|mark)\]/)
  })

  it('takes a name of any length', async () => {
    const { chat, send } = await start()
    expect((await send(message({ name: '<&*'.repeat(5_000), state: 'running' }))).verdict.kind).toBe('delivered')
    expect(chat.shown).toHaveLength(1)
  })

  it('says how long to wait when too much comes, and that is no fault', async () => {
    const { chat, send } = await start()
    chat.answers.push(chat.rules.rateLimit(7))
    const { verdict } = await send()
    expect(verdict).toMatchObject({ kind: 'later', isRate: true })
    // This one alone names no time.
    expect(verdict).toMatchObject({ afterMs: kind === 'google_chat' ? undefined : 7_000 })
    expect(chat.shown).toEqual([])
  })

  it('is gone when it says so, and back when its server only failed', async () => {
    const { chat, send } = await start()
    chat.answers.push(chat.rules.gone, { status: 500, body: 'oops' }, { status: 502, body: '<html>' })
    expect(await send()).toMatchObject({ verdict: { kind: 'gone' } })
    expect(await send()).toMatchObject({
      verdict: { kind: 'later', isRate: false },
      answer: { status: 500, body: 'oops' },
    })
    expect(await send()).toMatchObject({ verdict: { kind: 'later' } })
  })

  it('shows no secret in the request, the answer or the reason', async () => {
    const { chat, sender, config } = await start()
    const secrets = provider.secrets(config)
    expect(secrets.length).toBeGreaterThan(0)
    chat.answers.push({ status: 400, body: { error: { message: secrets.join(' ') }, description: secrets.join(' ') } })
    const sent = JSON.stringify(await sender.send(kind, config, message()))
    for (const secret of secrets) expect(sent).not.toContain(secret)
    expect(sent).toContain('***')
    expect(provider.target(config)).toMatch(/^127\.0\.0\.1:\d+$/)
  })

  it('is kept with nothing that it does not have, and at no other host', () => {
    const sender = newSender('')
    expect(() => provider.parse({ nonsense: 'x' }, sender.guard)).toThrow(
      expect.objectContaining({ code: 'invalid_request' }),
    )
    const elsewhere = chatRules[kind].config('https://example.com')
    if (kind === 'matrix' || kind === 'telegram')
      expect(provider.parse(elsewhere, sender.guard)).toMatchObject(elsewhere)
    else expect(() => provider.parse(elsewhere, sender.guard)).toThrow(/must be like https:\/\//)
    expect(() => provider.parse(chatRules[kind].config('https://127.0.0.1'), sender.guard)).toThrow(
      expect.objectContaining({ code: 'target_refused' }),
    )
  })
})

describe('what makes them different', () => {
  it('is one version of the API at Discord, whose limits are told in advance', async () => {
    const chat = keep(await ChatServer.start(chatRules.discord))
    const sender = newSender()
    const config = providers.discord.parse(chat.config, sender.guard)
    const headers = { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset-after': '1.5' }
    chat.answers.push({ status: 204, headers }, { status: 404, body: 'nothing here' })
    expect((await sender.send('discord', config, message())).verdict).toEqual({ kind: 'delivered', pauseMs: 1_500 })
    expect(chat.requests[0]?.url.pathname).toMatch(/^\/api\/v10\/webhooks\//)
    // Not Discord's own.
    expect((await sender.send('discord', config, message())).verdict.kind).toBe('later')
  })

  it('is one message for one id at Matrix and Google Chat', async () => {
    for (const kind of ['matrix', 'google_chat'] as const) {
      const chat = keep(await ChatServer.start(chatRules[kind]))
      const sender = newSender()
      const config = providers[kind].parse(chat.config, sender.guard)
      const twice = message()
      for (const _ of [1, 2]) expect((await sender.send(kind, config, twice)).verdict.kind).toBe('delivered')
      expect([kind, chat.shown.length]).toEqual([kind, 1])
    }
  })

  it('is the chat or the message at Telegram, which says both with 400', async () => {
    const chat = keep(await ChatServer.start(chatRules.telegram))
    const sender = newSender()
    const config = providers.telegram.parse({ ...chat.config, chat_id: '-99' }, sender.guard)
    expect((await sender.send('telegram', config, message())).verdict).toMatchObject({
      kind: 'gone',
      reason: expect.stringContaining('chat not found'),
    })
    chat.answers.push({
      status: 400,
      body: { ok: false, error_code: 400, description: "Bad Request: can't parse entities" },
    })
    expect((await sender.send('telegram', config, message())).verdict.kind).toBe('refused')
  })
})

describe('a webhook', () => {
  it('is signed in both ways, over the very bytes of the body', async () => {
    const seen: { headers: Record<string, unknown>; body: string }[] = []
    const target = keep(
      await serve((request, response) => {
        let body = ''
        request.on('data', (chunk) => {
          body += chunk
        })
        request.on('end', () => {
          seen.push({ headers: request.headers, body })
          response.end()
        })
      }),
    )
    const sender = newSender()
    const config = providers.webhook.parse({ url: `http://127.0.0.1:${target.port}/a/hook?x=1` }, sender.guard)
    const told = message()
    const sent = await sender.send('webhook', config, told)
    expect(sent.verdict.kind).toBe('delivered')
    const [{ headers, body } = { headers: {}, body: '' }] = seen
    expect(JSON.parse(body)).toEqual(told)
    const { secret = '' } = config
    const sign = (key: Buffer | string, text: string) => createHmac('sha256', key).update(text).digest()
    const standard = sign(Buffer.from(secret.slice(6), 'base64'), `${told.id}.${headers['webhook-timestamp']}.${body}`)
    expect(headers['webhook-signature']).toBe(`v1,${standard.toString('base64')}`)
    expect(headers['webhook-id']).toBe(told.id)
    const own = sign(secret, `${headers['x-wrenn-timestamp']}.${body}`)
    expect(headers['x-wrenn-signature']).toBe(`sha256=${own.toString('hex')}`)
    expect(headers['x-wrenn-delivery']).toBe(told.id)
    expect(sent.request.headers).toMatchObject({ 'webhook-signature': '***', 'webhook-id': told.id })
    expect(sent.request.url).toBe(`http://127.0.0.1:${target.port}/***`)
  })

  it('shows no part of its address, wherever the answer has it', async () => {
    const [segment, value] = ['sesame-open-7f3a', 'pass word 42']
    const target = keep(
      await serve((_request, response) => {
        // The one is where the reason is cut, and it is cut after it is blanked.
        const body = `${value} pass+word+42 pass%20word%2042 ${'x'.repeat(200)} ${`${segment} `.repeat(40)}`
        response.writeHead(422).end(body)
      }),
    )
    const sender = newSender()
    const url = `http://127.0.0.1:${target.port}/a/${segment}/b?c=1&key=pass+word+42`
    const sent = JSON.stringify(await sender.send('webhook', providers.webhook.parse({ url }, sender.guard), message()))
    expect(sent).toContain('The target answered 422: *** *** *** xxx')
    for (const part of ['sesame', 'pass', 'word']) expect(sent).not.toContain(part)
  })

  it('has a reason that can be kept, wherever it is cut', async () => {
    const target = keep(await serve((_request, response) => response.writeHead(422).end('😀'.repeat(500))))
    const sender = newSender()
    const config = providers.webhook.parse({ url: `http://127.0.0.1:${target.port}/` }, sender.guard)
    const { verdict } = await sender.send('webhook', config, message())
    const reason = 'reason' in verdict ? verdict.reason : ''
    expect(reason.length).toBe(500)
    // Throws for half a character.
    expect(encodeURIComponent(reason)).toContain('%F0%9F%98%80')
  })

  it('follows no redirect, waits for no one for ever, and reads no answer without end', async () => {
    const asked: string[] = []
    const target = keep(
      await serve(({ url = '' }, response) => {
        asked.push(url)
        if (url === '/redirects') return response.writeHead(302, { location: '/elsewhere' }).end()
        if (url === '/floods') {
          const flood = (): void => {
            if (!response.destroyed) response.write('x'.repeat(65_536), flood)
          }
          return flood()
        }
      }),
    )
    const send = async (path: string, sender = newSender()) => {
      const config = providers.webhook.parse({ url: `http://127.0.0.1:${target.port}${path}` }, sender.guard)
      return await sender.send('webhook', config, message())
    }
    expect(await send('/redirects')).toMatchObject({ verdict: { kind: 'later' }, answer: { status: 302 } })
    expect(await send('/hangs', newSender('127.0.0.1', 1_000))).toMatchObject({
      verdict: { kind: 'later', reason: expect.stringContaining('did not answer within 1 s') },
      answer: undefined,
    })
    const flood = await send('/floods')
    expect(flood.verdict.kind).toBe('delivered')
    expect(flood.answer?.body.length).toBeLessThan(3_000)
    expect(asked).not.toContain('/elsewhere')
  })

  it.each([
    [
      'switches to another protocol',
      'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
      '101',
    ],
    ['ends the connection without an answer', '', 'socket hang up'],
    ['ends the connection within an answer', 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf', 'aborted'],
  ])('is tried again later when it %s', async (_what, answer, words) => {
    const open = new Set<Socket>()
    const target = createTcpServer((socket) => {
      open.add(socket.on('error', () => {}))
      // What switches stays open: the sender has to end it.
      socket.once('data', () => (answer.includes('101') ? socket.write(answer) : socket.end(answer)))
    }).listen(0, '127.0.0.1')
    await once(target, 'listening')
    keep({
      [Symbol.asyncDispose]: async () => {
        for (const socket of open) socket.destroy()
        await new Promise((resolve) => target.close(resolve))
      },
    })
    const { port } = target.address() as AddressInfo // it listens on a port
    const sender = newSender('127.0.0.1', 60_000)
    const config = providers.webhook.parse({ url: `http://127.0.0.1:${port}/` }, sender.guard)
    expect(await sender.send('webhook', config, message())).toMatchObject({
      verdict: { kind: 'later', reason: expect.stringContaining(words) },
      answer: undefined,
    })
    await expect.poll(() => [...open].filter((socket) => !socket.destroyed), { timeout: 20_000 }).toEqual([])
  })

  it('is asked once more where the connection that was kept had ended meanwhile', async () => {
    let count = 0
    const server = createServer((_request, response) => {
      count++
      response.end()
    })
    const open = new Set<import('node:net').Socket>()
    server.on('connection', (socket) => open.add(socket))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    keep({
      [Symbol.asyncDispose]: async () => {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      },
    })
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const sender = newSender()
    const config = providers.webhook.parse({ url: `http://127.0.0.1:${port}/` }, sender.guard)
    expect((await sender.send('webhook', config, message())).verdict.kind).toBe('delivered')
    for (const socket of open) socket.resetAndDestroy()
    expect((await sender.send('webhook', config, message())).verdict.kind).toBe('delivered')
    expect(count).toBe(2)
  })

  it('may not be where channels may not send to, by whatever name', async () => {
    const resolve = () => Promise.resolve(['127.0.0.1'])
    const sender = new Sender({ allowed: [], resolve })
    senders.push(sender)
    const config = providers.webhook.parse({ url: 'https://inside.test/' }, sender.guard)
    const { refusal, answer } = await sender.send('webhook', config, message())
    expect(refusal).toMatchObject({ code: 'target_refused' })
    expect(answer).toBeUndefined()
  })

  it.each([
    { url: 'ftp://x/' },
    { url: 'nonsense' },
    { url: 'https://a:b@example.com/' },
    {},
    { url: 'https://example.com/', secret: 'short' },
  ])('is refused as %j', (config) => {
    expect(() => providers.webhook.parse(config, newSender('').guard)).toThrow(
      expect.objectContaining({ code: 'invalid_request' }),
    )
  })
})
