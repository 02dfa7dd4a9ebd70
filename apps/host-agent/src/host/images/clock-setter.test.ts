import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { clockSetter } from './clock-setter.js'

const EPERM = 1
const NOBODY = 65_534

describe('the clock setter', () => {
  it('tries to set the clock on each 16 bytes, reports the error, and ends with its input', async ({ skip }) => {
    const program = clockSetter()
    if (program === undefined) return skip(`there is none for ${process.arch}`)
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-clock-'))
    try {
      await chmod(dir, 0o755)
      const path = join(dir, 'set-clock')
      await writeFile(path, program, { mode: 0o755 })
      // Without privileges the kernel refuses, so this machine's clock stays as it is.
      const child = spawn(path, { uid: NOBODY, gid: NOBODY, stdio: ['pipe', 'pipe', 'ignore'] })
      const time = Buffer.alloc(16)
      time.writeBigUInt64LE(1_700_000_000n, 0)
      for (let turn = 0; turn < 2; turn++) {
        child.stdin.write(time)
        const [answer] = await once(child.stdout, 'data')
        expect([...answer]).toEqual([256 - EPERM])
      }
      child.stdin.end()
      expect(await once(child, 'exit')).toEqual([0, null])
    } finally {
      await rm(dir, { recursive: true })
    }
  })
})
