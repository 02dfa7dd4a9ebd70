import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { giveReceiveBuffer } from './receive-buffer.js'

const MIB = 2 ** 20
let dir = ''
let limitFile = ''

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-rmem-test-'))
  limitFile = join(dir, 'rmem_max')
})
afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

/** What the limit is while the socket gets its buffer, and after that. */
function limits(bytes: number): { readonly meanwhile: number; readonly after: number } {
  let meanwhile = Number.NaN
  const read = (): number => Number(readFileSync(limitFile, 'utf8'))
  const socket = {
    setRecvBufferSize: () => {
      meanwhile = read()
    },
  }
  expect(giveReceiveBuffer(socket, bytes, limitFile)).toBeUndefined()
  return { meanwhile, after: read() }
}

describe('a receive buffer beyond the limit of the machine', () => {
  it('is had by raising the limit for that moment alone', async () => {
    await writeFile(limitFile, '212992\n')
    expect(limits(4 * MIB)).toEqual({ meanwhile: 4 * MIB, after: 212992 })
  })

  it('leaves the limit as it was when the socket refuses', async () => {
    await writeFile(limitFile, '212992')
    const setRecvBufferSize = (): never => {
      throw new Error('closed')
    }
    expect(() => giveReceiveBuffer({ setRecvBufferSize }, 4 * MIB, limitFile)).toThrow('closed')
    expect(readFileSync(limitFile, 'utf8')).toBe('212992')
  })

  it('leaves a limit alone that is high enough', async () => {
    await writeFile(limitFile, `${16 * MIB}\n`)
    expect(limits(4 * MIB)).toEqual({ meanwhile: 16 * MIB, after: 16 * MIB })
  })

  it('is what the limit allows where that cannot be raised, and the reason is told', async () => {
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    expect(giveReceiveBuffer(socket, 4 * MIB, join(dir, 'missing'))).toContain('ENOENT')
    expect(socket.getRecvBufferSize()).toBeGreaterThan(0)
    socket.close()
  })
})

describe.skipIf(process.getuid?.() !== 0)('a socket of this machine (needs root)', () => {
  it('has the room that was asked for', async () => {
    const socket = createSocket('udp4')
    socket.bind(0, '127.0.0.1')
    await once(socket, 'listening')
    // The kernel doubles it for its own bookkeeping, socket(7).
    if (giveReceiveBuffer(socket, 4 * MIB) === undefined) expect(socket.getRecvBufferSize()).toBe(8 * MIB)
    socket.close()
  })
})
