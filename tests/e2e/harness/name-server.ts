import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { copyFile, rename, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Platform } from './platform.js'

/** A loopback address of nobody else's: port 53 of it is free. */
const ADDRESS = '127.53.0.1'
const TYPE_A = 1
/** Another one may know: the host asks the machine's own servers then. */
const REFUSED = 0x8185
const ANSWERED = 0x8180
const TRUNCATED = 0x8380
/** Room for what a guest asks at once. */
const BURST_BYTES = 2 ** 22

export interface NameServer extends AsyncDisposable {
  /** Questions that came, by transport. */
  readonly asked: { udp: number; tcp: number }
}

/**
 * Answers every name below `.wrenn.test` with 192.0.2.1 after `delayMs`, those below `.long.wrenn.test` over TCP only; for
 * everything else the machine's own servers are asked, as before. Until it is disposed.
 */
export async function startNameServer({ env }: Platform, delayMs: number): Promise<NameServer> {
  const { WRENN_RESOLV_CONF: resolvConf } = env
  if (resolvConf === undefined) throw new Error('The suite names the servers that its platform asks.')
  const asked = { udp: 0, tcp: 0 }
  const udp = createSocket({ type: 'udp4', recvBufferSize: BURST_BYTES })
  udp.on('message', (query, { port, address }) => {
    asked.udp += 1
    setTimeout(() => udp.send(answerTo(query, isLong(query) ? TRUNCATED : ANSWERED), port, address), delayMs)
  })
  const tcp = createServer((socket) => {
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      asked.tcp += 1
      const answer = answerTo(chunk.subarray(2), ANSWERED) // one question a connection, as the host asks
      setTimeout(
        () => socket.end(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer])),
        delayMs,
      )
    })
  })
  udp.bind(53, ADDRESS)
  await once(udp, 'listening')
  tcp.listen(53, ADDRESS)
  await once(tcp, 'listening')
  await copyFile('/etc/resolv.conf', `${resolvConf}.before`)
  await writeFile(`${resolvConf}.new`, `nameserver ${ADDRESS}\n`)
  await rename(`${resolvConf}.new`, resolvConf)
  return {
    asked,
    async [Symbol.asyncDispose]() {
      await rename(`${resolvConf}.before`, resolvConf)
      await new Promise((resolve) => tcp.close(resolve))
      await new Promise<void>((resolve) => udp.close(resolve))
    },
  }
}

const isOurs = (query: Buffer): boolean => query.toString('latin1').toLowerCase().includes('\x05wrenn\x04test\x00')
const isLong = (query: Buffer): boolean => query.toString('latin1').toLowerCase().includes('\x04long\x05wrenn')

/** The question comes back with an address when it asks for one, and with nothing when it asks for AAAA. */
function answerTo(query: Buffer, flags: number): Buffer {
  const end = query.indexOf(0, 12) + 5
  const isA = query.readUInt16BE(end - 4) === TYPE_A
  const record = Buffer.from([0xc0, 12, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1])
  const hasRecord = isA && flags === ANSWERED && isOurs(query)
  const answer = Buffer.concat([query.subarray(0, end), ...(hasRecord ? [record] : [])])
  answer.writeUInt16BE(isOurs(query) ? flags : REFUSED, 2)
  answer.writeUInt16BE(hasRecord ? 1 : 0, 6)
  answer.writeUInt32BE(0, 8)
  return answer
}
