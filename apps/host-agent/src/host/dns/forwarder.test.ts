import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLogger } from '@wrenn/base'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type DnsForwarder, startDnsForwarder } from './forwarder.js'
import { FrameReader, frame } from './frames.js'
import { parseQuery } from './message.js'
import { parseResolvConf } from './upstreams.js'

function question(name: string, id = 0x1234): Buffer {
  const header = Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0])
  const labels = name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)]))
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, 1, 0, 1])])
}

/** Answers with the question, `flags` and the server's own number as payload. */
function answerTo(query: Buffer, mark: number, flags = 0x8180): Buffer {
  const answer = Buffer.concat([query, Buffer.from([mark])])
  answer.writeUInt16BE(flags, 2)
  return answer
}

const rcode = (message: Buffer): number => message.readUInt16BE(2) & 15
const mark = (message: Buffer): number => message[message.length - 1] ?? -1

describe('the DNS forwarder', () => {
  const closers: (() => unknown)[] = []
  let dir = ''
  let upstreamPort = 0
  let forwarder: DnsForwarder

  /** An upstream on its own loopback address, UDP and TCP on one port. */
  async function upstream(address: string, answer: (query: Buffer) => Buffer[]): Promise<UdpSocket> {
    const udp = createSocket('udp4')
    udp.bind(upstreamPort, address)
    await once(udp, 'listening')
    udp.on('message', (query, from) => {
      for (const message of answer(query)) udp.send(message, from.port, from.address)
    })
    const tcp: Server = createServer((socket) => {
      const frames = new FrameReader()
      socket.on('error', () => {})
      socket.on('data', (chunk) => {
        for (const query of frames.push(chunk)) for (const message of answer(query)) socket.write(frame(message))
      })
    }).listen(udp.address().port, address)
    await once(tcp, 'listening')
    closers.push(
      () => udp.close(),
      () => tcp.close(),
    )
    upstreamPort = udp.address().port
    return udp
  }

  async function start(servers: readonly string[], timeoutMs = 200): Promise<void> {
    await writeFile(join(dir, 'resolv.conf'), servers.map((server) => `nameserver ${server}\n`).join(''))
    forwarder = await startDnsForwarder({
      address: '127.0.0.1',
      port: 0,
      upstreamPort,
      timeoutMs,
      resolvConfPath: join(dir, 'resolv.conf'),
      logger: silentLogger,
    })
    closers.push(() => forwarder.close())
  }

  async function ask(message: Buffer): Promise<Buffer> {
    const socket = createSocket('udp4')
    try {
      socket.send(message, forwarder.port, '127.0.0.1')
      const [answer] = (await once(socket, 'message')) as [Buffer]
      return answer
    } finally {
      socket.close()
    }
  }

  async function askTcp(messages: readonly Buffer[]): Promise<readonly Buffer[]> {
    const socket = connect(forwarder.port, '127.0.0.1')
    const frames = new FrameReader()
    const answers: Buffer[] = []
    socket.write(Buffer.concat(messages.map(frame)))
    for await (const chunk of socket) {
      answers.push(...frames.push(chunk as Buffer))
      if (answers.length === messages.length) break
    }
    return answers
  }

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-dns-'))
    upstreamPort = 0
  })

  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close()
    await rm(dir, { recursive: true })
  })

  it('relays questions and answers under the client’s id, over UDP and TCP', async () => {
    await upstream('127.0.0.2', (query) => [answerTo(query, 7)])
    await start(['127.0.0.2'])
    const answer = await ask(question('wrenn.example', 0xbeef))
    expect([answer.readUInt16BE(0), mark(answer)]).toEqual([0xbeef, 7])
    const answers = await askTcp([question('a.example', 1), question('b.example', 2)])
    expect(answers.map((message) => message.readUInt16BE(0)).sort()).toEqual([1, 2])
  })

  it('asks the next server when one refuses, is silent, or answers something else', async () => {
    await upstream('127.0.0.3', () => [])
    await upstream('127.0.0.4', (query) => [answerTo(query, 4)])
    await start(['127.0.0.2', '127.0.0.3', '127.0.0.4'])
    expect(mark(await ask(question('wrenn.example')))).toBe(4)
    expect((await askTcp([question('wrenn.example')])).map(mark)).toEqual([4])
  })

  it('ignores answers to another question or id and takes the right one', async () => {
    const wrongId = (query: Buffer): Buffer => {
      const answer = answerTo(query, 1)
      answer.writeUInt16BE(query.readUInt16BE(0) ^ 1, 0)
      return answer
    }
    await upstream('127.0.0.2', (query) => [
      wrongId(query),
      answerTo(question('evil.example', query.readUInt16BE(0)), 2),
      answerTo(query, 3),
    ])
    await start(['127.0.0.2'])
    expect(mark(await ask(question('wrenn.example')))).toBe(3)
  })

  it('passes truncated answers through', async () => {
    await upstream('127.0.0.2', (query) => [answerTo(query, 1, 0x8380)])
    await start(['127.0.0.2'])
    expect((await ask(question('wrenn.example'))).readUInt16BE(2) & 0x0200).toBe(0x0200)
  })

  it('answers SERVFAIL with the question when no server does', async () => {
    await upstream('127.0.0.2', () => [])
    await start(['127.0.0.2'], 50)
    const query = question('wrenn.example', 9)
    const answer = await ask(query)
    expect([answer.readUInt16BE(0), rcode(answer)]).toEqual([9, 2])
    expect(answer.subarray(12)).toEqual(query.subarray(12))
  })

  it('reads resolv.conf again when it is replaced', async () => {
    await upstream('127.0.0.2', (query) => [answerTo(query, 2)])
    await upstream('127.0.0.3', (query) => [answerTo(query, 3)])
    await start(['127.0.0.2'])
    expect(mark(await ask(question('wrenn.example')))).toBe(2)
    await writeFile(join(dir, 'new'), 'nameserver 127.0.0.3\n')
    await rename(join(dir, 'new'), join(dir, 'resolv.conf'))
    expect(mark(await ask(question('wrenn.example')))).toBe(3)
  })

  it('survives whatever bytes a guest sends', async () => {
    await upstream('127.0.0.2', (query) => [answerTo(query, 5)])
    await start(['127.0.0.2'])
    const noise = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 600 }),
      fc.uint8Array({ maxLength: 40 }).map((tail) => Uint8Array.from([...question('a.b').subarray(0, 12), ...tail])),
    )
    const socket = createSocket('udp4')
    await fc.assert(
      fc.asyncProperty(noise, async (bytes) => {
        await new Promise((resolve) => socket.send(bytes, forwarder.port, '127.0.0.1', resolve))
        const tcp = connect(forwarder.port, '127.0.0.1')
        tcp.on('error', () => {})
        tcp.resume().end(bytes)
        await once(tcp, 'close')
      }),
      { numRuns: 100 },
    )
    socket.close()
    expect(mark(await ask(question('wrenn.example')))).toBe(5)
  })

  it('parses any bytes as a query or nothing, never beyond their end', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const query = parseQuery(Buffer.from(bytes))
        if (query) expect(query.question.length).toBeLessThanOrEqual(bytes.length - 12)
      }),
    )
  })

  it('takes up to three nameservers of either family, and this machine when there are none', () => {
    const text = '# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1 \n nameserver fe80::1%eth0\nnameserver nonsense\n'
    expect(parseResolvConf(text)).toEqual(['10.0.0.1', 'fe80::1%eth0'])
    expect(parseResolvConf('search x\n')).toEqual(['127.0.0.1'])
    expect(parseResolvConf('nameserver 1.1.1.1\n'.repeat(5))).toHaveLength(3)
  })
})
