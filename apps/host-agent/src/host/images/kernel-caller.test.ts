import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { kernelCaller } from './kernel-caller.js'

const FRAME_BYTES = 1024
const DATA = 0x600040n
const EPERM = 1n
const NOBODY = 65_534

function frame(numbers: readonly bigint[], answerBytes: number, data = ''): Buffer {
  const bytes = Buffer.alloc(FRAME_BYTES)
  for (const [index, number] of numbers.entries()) bytes.writeBigInt64LE(number, index * 8)
  bytes.writeBigInt64LE(BigInt(answerBytes), 56)
  bytes.write(data, 64)
  return bytes
}

describe('the kernel caller', () => {
  it('makes the calls it is given, one after another, and ends with its input', async ({ skip }) => {
    const program = kernelCaller()
    if (program === undefined) return skip(`there is none for ${process.arch}`)
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-caller-'))
    try {
      await chmod(dir, 0o755)
      const path = join(dir, 'kernel-caller')
      await writeFile(path, program, { mode: 0o755 })
      // Without privileges, so that this machine's clock stays as it is.
      const child = spawn(path, { uid: NOBODY, gid: NOBODY, stdio: ['pipe', 'pipe', 'ignore'] })
      const getuid = frame([102n], 8)
      const settime = frame([227n, 0n, DATA], 8)
      const readlink = frame([89n, DATA, DATA, 4000n], 64 + 4000, '/proc/self/exe\0')
      child.stdin.end(Buffer.concat([getuid, settime, readlink]))
      const chunks: Buffer[] = []
      child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
      expect(await once(child, 'close')).toEqual([0, null])
      const answers = Buffer.concat(chunks)
      expect(answers.length).toBe(8 + 8 + 64 + 4000)
      expect([answers.readBigInt64LE(0), answers.readBigInt64LE(8)]).toEqual([BigInt(NOBODY), -EPERM])
      expect(answers.readBigInt64LE(16)).toBe(BigInt(path.length))
      expect(answers.toString('utf8', 16 + 64, 16 + 64 + path.length)).toBe(path)
    } finally {
      await rm(dir, { recursive: true })
    }
  })
})
