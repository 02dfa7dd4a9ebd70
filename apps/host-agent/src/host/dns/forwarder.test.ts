import { createSocket, type Socket as UdpSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { silentLogger } from '@wrenn/base'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type AnswerWitness, type DnsForwarder, startDnsForwarder } from './forwarder.js'
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
/** Loopback addresses of this process alone: other runs have their servers at the same time. */
const NETWORK = `127.${16 + (process.pid % 64)}.${(process.pid >> 6) % 256}`
/** For UDP and TCP alike, so below those that the kernel hands out for one of them. */
const [PORT, UPSTREAM_PORT] = [5301, 5300]
/** Room for what a test sends in one go, where the machine's `net.core.rmem_max` allows it: Debian's own is 208 KiB, for some 500 questions. */
const BURST_BYTES = 2 ** 22
const AGAIN_MS = 2_000

/** Resolvers wait 5 s, however slow their machine is. */
const tooSlow =
  process.env.WRENN_TEST_SLOW === undefined
    ? ''
    : ' (skipped, WRENN_TEST_SLOW: an emulated CPU answers no burst in 5 s)'

describe('the DNS forwarder', () => {
  const closers: (() => unknown)[] = []
  let dir = ''
  let forwarder: DnsForwarder

  /** An upstream on its own loopback address, UDP and TCP on one port. */
  async function upstream(
    address: string,
    answer: (query: Buffer, port: number) => Buffer[],
    delayMs = 0,
  ): Promise<UdpSocket> {
    const udp = createSocket({ type: 'udp4', recvBufferSize: BURST_BYTES })
    udp.bind(UPSTREAM_PORT, address)
    await once(udp, 'listening')
    let closed = false
    udp.on('message', (query, from) => {
      const reply = (): void => {
        if (closed) return
        for (const message of answer(query, from.port)) udp.send(message, from.port, from.address)
      }
      if (delayMs === 0) reply()
      else setTimeout(reply, delayMs)
    })
    const tcp: Server = createServer((socket) => {
      const frames = new FrameReader()
      socket.on('error', () => {})
      socket.on('data', (chunk) => {
        for (const query of frames.push(chunk)) for (const message of answer(query, 0)) socket.write(frame(message))
      })
    }).listen(UPSTREAM_PORT, address)
    await once(tcp, 'listening')
    closers.push(
      () => {
        closed = true
        udp.close()
      },
      () => tcp.close(),
    )
    return udp
  }

  async function start(
    servers: readonly string[],
    {
      timeoutMs = 4_000,
      patienceMs = 100,
      mayAsk = (_client: string, _name: string): boolean => true,
      witness = { wants: (_client: string): boolean => false, hear: () => {} } as AnswerWitness,
    } = {},
  ): Promise<void> {
    await writeFile(join(dir, 'resolv.conf'), servers.map((server) => `nameserver ${server}\n`).join(''))
    forwarder = await startDnsForwarder({
      address: `${NETWORK}.1`,
      port: PORT,
      upstreamPort: UPSTREAM_PORT,
      timeoutMs,
      patienceMs,
      mayAsk,
      witness,
      resolvConfPath: join(dir, 'resolv.conf'),
      logger: silentLogger,
    })
    closers.push(() => forwarder.close())
  }

  async function ask(message: Buffer): Promise<Buffer> {
    const socket = createSocket('udp4')
    try {
      socket.send(message, forwarder.port, `${NETWORK}.1`)
      const [answer] = (await once(socket, 'message')) as [Buffer]
      return answer
    } finally {
      socket.close()
    }
  }

  /** A guest with one socket at `address`, all its questions sent before it looks at an answer; it may ask again, as resolvers do. */
  async function burst(
    address: string,
    messages: readonly Buffer[],
    againAfterMs?: number,
  ): Promise<{ answers: Buffer[]; all: Promise<void> }> {
    const socket = createSocket({ type: 'udp4', recvBufferSize: BURST_BYTES })
    socket.bind(0, address)
    await once(socket, 'listening')
    closers.push(() => socket.close())
    const answers: Buffer[] = []
    const answered = new Set<number>()
    const all = new Promise<void>((resolve) => {
      socket.on('message', (answer) => {
        if (againAfterMs !== undefined && answered.has(answer.readUInt16BE(0))) return
        answered.add(answer.readUInt16BE(0))
        if (answers.push(answer) === messages.length) resolve()
      })
    })
    const askAll = async (): Promise<void> => {
      for (const message of messages) {
        if (againAfterMs !== undefined && answered.has(message.readUInt16BE(0))) continue
        await new Promise((resolve) => socket.send(message, forwarder.port, `${NETWORK}.1`, resolve))
      }
    }
    await askAll()
    if (againAfterMs !== undefined) {
      const timer = setInterval(() => void askAll(), againAfterMs)
      closers.push(() => clearInterval(timer))
    }
    return { answers, all }
  }

  const questions = (count: number, zone: string): Buffer[] =>
    Array.from({ length: count }, (_, index) => question(`n${index}.${zone}`, index))
  const ids = (messages: readonly Buffer[]): number[] =>
    messages.map((message) => message.readUInt16BE(0)).sort((a, b) => a - b)

  async function askTcp(messages: readonly Buffer[]): Promise<readonly Buffer[]> {
    const socket = connect(forwarder.port, `${NETWORK}.1`)
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
  })

  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close()
    await rm(dir, { recursive: true })
  })

  it('asks nobody for what a client may not ask, and says so by UDP and TCP', async () => {
    const asked: string[] = []
    const upstreamAsked: Buffer[] = []
    await upstream(`${NETWORK}.2`, (query) => {
      upstreamAsked.push(query)
      return [answerTo(query, 2)]
    })
    const mayAsk = (client: string, name: string): boolean => {
      asked.push(`${client} ${name}`)
      return name === 'good.example'
    }
    await start([`${NETWORK}.2`], { mayAsk })
    const refused = await ask(question('Bad.Example'))
    expect([refused.readUInt16BE(0), rcode(refused), refused.readUInt16BE(6)]).toEqual([0x1234, 5, 0])
    const socket = connect(forwarder.port, `${NETWORK}.1`)
    socket.write(Buffer.concat([frame(question('bad.example', 7)), frame(question('GOOD.example', 8))]))
    const frames = new FrameReader()
    const answers: Buffer[] = []
    for await (const chunk of socket) {
      answers.push(...frames.push(chunk))
      if (answers.length === 2) break
    }
    expect(answers.map((answer) => [answer.readUInt16BE(0), rcode(answer)])).toEqual([
      [7, 5],
      [8, 0],
    ])
    expect(asked).toEqual(['127.0.0.1 bad.example', '127.0.0.1 bad.example', '127.0.0.1 good.example'])
    expect(upstreamAsked).toHaveLength(1)
  })

  it('tells a witness what those are answered that it wants to hear of', async () => {
    const heard: unknown[] = []
    const wanted = new Set<string>()
    const witness = {
      wants: (client: string) => wanted.has(client),
      hear: (client: string, name: string, addresses: readonly string[]) => heard.push([client, name, addresses]),
    }
    const alias = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, 0x61, 0xc0, 12]
    const address = (last: number) => [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, last]
    await upstream(`${NETWORK}.2`, (query) => {
      const answer = Buffer.concat([query, Buffer.from([...alias, ...address(1), ...address(2)])])
      answer.writeUInt16BE(0x8180, 2)
      answer.writeUInt16BE(3, 6)
      return [answer]
    })
    await start([`${NETWORK}.2`], { witness })
    await ask(question('Quiet.example'))
    wanted.add('127.0.0.1')
    await ask(question('Loud.example'))
    await askTcp([question('by-tcp.example', 1)])
    expect(heard).toEqual([
      ['127.0.0.1', 'loud.example', ['192.0.2.1', '192.0.2.2']],
      ['127.0.0.1', 'by-tcp.example', ['192.0.2.1', '192.0.2.2']],
    ])
  })

  it('relays questions and answers under the client’s id, over UDP and TCP', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 7)])
    await start([`${NETWORK}.2`])
    const answer = await ask(question('wrenn.example', 0xbeef))
    expect([answer.readUInt16BE(0), mark(answer)]).toEqual([0xbeef, 7])
    const answers = await askTcp([question('a.example', 1), question('b.example', 2)])
    expect(answers.map((message) => message.readUInt16BE(0)).sort()).toEqual([1, 2])
  })

  it('asks the next server when one refuses, is silent, or answers something else', async () => {
    await upstream(`${NETWORK}.3`, () => [])
    await upstream(`${NETWORK}.4`, (query) => [answerTo(query, 4)])
    await start([`${NETWORK}.2`, `${NETWORK}.3`, `${NETWORK}.4`])
    expect(mark(await ask(question('wrenn.example')))).toBe(4)
    expect((await askTcp([question('wrenn.example')])).map(mark)).toEqual([4])
  })

  it('ignores answers to another question or id and takes the right one', async () => {
    const wrongId = (query: Buffer): Buffer => {
      const answer = answerTo(query, 1)
      answer.writeUInt16BE(query.readUInt16BE(0) ^ 1, 0)
      return answer
    }
    await upstream(`${NETWORK}.2`, (query) => [
      wrongId(query),
      answerTo(question('evil.example', query.readUInt16BE(0)), 2),
      answerTo(query, 3),
    ])
    await start([`${NETWORK}.2`])
    expect(mark(await ask(question('wrenn.example')))).toBe(3)
  })

  it('passes truncated answers through', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 1, 0x8380)])
    await start([`${NETWORK}.2`])
    expect((await ask(question('wrenn.example'))).readUInt16BE(2) & 0x0200).toBe(0x0200)
  })

  it.skipIf(tooSlow !== '')(
    `answers 1,000 look-ups at once, two questions each, of slow servers, and keeps nothing of them${tooSlow}`,
    async () => {
      await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 7)], 50)
      await start([`${NETWORK}.2`], { patienceMs: 1_000 })
      const { answers, all } = await burst('127.0.0.1', questions(2000, 'example'), AGAIN_MS)
      await all
      expect(ids(answers)).toEqual(Array.from({ length: 2000 }, (_, index) => index))
      expect(new Set(answers.map(rcode))).toEqual(new Set([0]))
      await expect.poll(() => forwarder.held).toEqual({ questions: 0, clients: 0 })
    },
  )

  it('answers 150 look-ups at once whose answers are truncated over TCP, a connection each', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 7)], 50)
    await start([`${NETWORK}.2`])
    const answers = await Promise.all(questions(150, 'example').map(async (message) => await askTcp([message])))
    expect(ids(answers.flat())).toEqual(Array.from({ length: 150 }, (_, index) => index))
  })

  it.skipIf(tooSlow !== '')(
    `answers one guest while another waits for thousands of names that nobody knows${tooSlow}`,
    async () => {
      const isDead = (query: Buffer): boolean => query.toString('latin1').includes('dead')
      await upstream(`${NETWORK}.2`, (query) => (isDead(query) ? [] : [answerTo(query, 7)]))
      await start([`${NETWORK}.2`])
      const flooding = await burst('127.0.0.10', questions(5000, 'dead'))
      const other = await burst('127.0.0.11', questions(100, 'example'), AGAIN_MS)
      await other.all
      expect(new Set(other.answers.map(rcode))).toEqual(new Set([0]))
      expect(flooding.answers).toEqual([])
    },
  )

  it('asks nobody any more once it is closed, and answers nobody', async () => {
    let asked = 0
    await upstream(`${NETWORK}.2`, () => {
      asked++
      return []
    })
    await start([`${NETWORK}.2`])
    const { answers } = await burst('127.0.0.1', questions(100, 'example'))
    await expect.poll(() => asked).toBeGreaterThanOrEqual(100)
    await forwarder.close()
    // What was sent before may still wait at the server.
    let atClose = Number.NaN
    while (atClose !== asked) {
      atClose = asked
      await delay(500)
    }
    await delay(500)
    expect([asked - atClose, answers]).toEqual([0, []])
  })

  it('asks once what a guest asks again, and answers each of its sockets', async () => {
    let asked = 0
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, ++asked)], 50)
    await start([`${NETWORK}.2`], { patienceMs: 1_000 })
    const again = Array.from({ length: 5 }, () => question('wrenn.example', 1))
    const [one, two] = [await burst('127.0.0.1', again), await burst('127.0.0.1', [question('wrenn.example', 2)])]
    await two.all
    expect([ids(one.answers), ids(two.answers), asked]).toEqual([[1], [2], 1])
  })

  it('asks for every question under an id and from a port of its own', async () => {
    const asked: { id: number; port: number }[] = []
    await upstream(`${NETWORK}.2`, (query, port) => {
      asked.push({ id: query.readUInt16BE(0), port })
      return [answerTo(query, 7)]
    })
    await start([`${NETWORK}.2`])
    await (await burst('127.0.0.1', questions(300, 'example'))).all
    // Two of 300 may meet by chance, of 65,536 ids and some 28,000 ports.
    expect(new Set(asked.map(({ id }) => id)).size).toBeGreaterThan(280)
    expect(new Set(asked.map(({ port }) => port)).size).toBeGreaterThan(280)
  })

  it('asks a server again, under another id, when question or answer was lost', async () => {
    const seen: number[] = []
    await upstream(`${NETWORK}.2`, (query) => {
      seen.push(query.readUInt16BE(0))
      return seen.length === 1 ? [] : [answerTo(query, 6)]
    })
    await start([`${NETWORK}.2`])
    expect(mark(await ask(question('wrenn.example')))).toBe(6)
    expect(seen).toHaveLength(2)
  })

  it('takes the answer of a server that is slower than the patience with it', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 2)], 250)
    await upstream(`${NETWORK}.3`, () => [])
    await start([`${NETWORK}.2`, `${NETWORK}.3`])
    expect(mark(await ask(question('wrenn.example')))).toBe(2)
  })

  it.each([
    ['SERVFAIL', 0x8182],
    ['NOTIMP', 0x8184],
    ['REFUSED', 0x8185],
  ])('asks the next server after a %s, and passes it on when that is what all say', async (_, flags) => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 2, flags)])
    await upstream(`${NETWORK}.3`, (query) => [answerTo(query, 3)])
    await start([`${NETWORK}.2`, `${NETWORK}.3`])
    expect(mark(await ask(question('wrenn.example')))).toBe(3)
    await writeFile(join(dir, 'resolv.conf'), `nameserver ${NETWORK}.2\n`)
    const answer = await ask(question('wrenn.example'))
    expect([mark(answer), rcode(answer)]).toEqual([2, flags & 15])
  })

  it('passes on at once that a name does not exist', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 2, 0x8183)])
    await upstream(`${NETWORK}.3`, (query) => [answerTo(query, 3)])
    await start([`${NETWORK}.2`, `${NETWORK}.3`])
    expect(mark(await ask(question('wrenn.example')))).toBe(2)
  })

  it('closes a connection that announces more than a query, and keeps others', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 7)])
    await start([`${NETWORK}.2`])
    const greedy = connect(forwarder.port, `${NETWORK}.1`)
    greedy.write(Buffer.from([0xff, 0xff, 0]))
    await once(greedy.resume(), 'close')
    expect((await askTcp([question('wrenn.example')])).map(mark)).toEqual([7])
  })

  it('answers SERVFAIL with the question when no server does', async () => {
    await upstream(`${NETWORK}.2`, () => [])
    await start([`${NETWORK}.2`], { timeoutMs: 300 })
    const query = question('wrenn.example', 9)
    const answer = await ask(query)
    expect([answer.readUInt16BE(0), rcode(answer)]).toEqual([9, 2])
    expect(answer.subarray(12)).toEqual(query.subarray(12))
  })

  it('reads resolv.conf again when it is replaced', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 2)])
    await upstream(`${NETWORK}.3`, (query) => [answerTo(query, 3)])
    await start([`${NETWORK}.2`])
    expect(mark(await ask(question('wrenn.example')))).toBe(2)
    await writeFile(join(dir, 'new'), `nameserver ${NETWORK}.3\n`)
    await rename(join(dir, 'new'), join(dir, 'resolv.conf'))
    expect(mark(await ask(question('wrenn.example')))).toBe(3)
  })

  it('survives whatever bytes a guest sends', async () => {
    await upstream(`${NETWORK}.2`, (query) => [answerTo(query, 5)])
    await start([`${NETWORK}.2`])
    const noise = fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 600 }),
      fc.uint8Array({ maxLength: 40 }).map((tail) => Uint8Array.from([...question('a.b').subarray(0, 12), ...tail])),
    )
    const socket = createSocket('udp4')
    await fc.assert(
      fc.asyncProperty(noise, async (bytes) => {
        await new Promise((resolve) => socket.send(bytes, forwarder.port, `${NETWORK}.1`, resolve))
        const tcp = connect(forwarder.port, `${NETWORK}.1`)
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
