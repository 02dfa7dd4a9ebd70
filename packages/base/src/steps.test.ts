import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { stepsFromFile } from './steps.js'

describe('stepsFromFile', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'wrenn-steps-'))
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  it('breaks exactly the wanted step, once', () => {
    const path = join(dir, 'step')
    const reach = stepsFromFile(path)
    reach('pause:saved')
    writeFileSync(path, 'pause:saved fail\n')
    reach('pause:begun')
    expect(() => reach('pause:saved')).toThrow('pause:saved')
    expect(existsSync(path)).toBe(false)
    reach('pause:saved')
  })

  it('stops a process at a step until it is continued', async () => {
    const path = join(dir, 'step')
    writeFileSync(path, 'pause:saved stop\n')
    const module = new URL('./steps.ts', import.meta.url).href
    const program = `const { stepsFromFile } = await import(${JSON.stringify(module)});
      stepsFromFile(${JSON.stringify(path)})('pause:saved'); console.log('went on')`
    const argv = ['--conditions=wrenn-source', '--import', 'tsx', '--input-type=module', '--eval', program]
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
    const output = new Promise<string>((resolve) => child.stdout.once('data', (bytes: Buffer) => resolve(`${bytes}`)))
    const isStopped = () => readFileSync(`/proc/${child.pid}/stat`, 'utf8').includes(') T ')
    while (!isStopped()) await new Promise((resolve) => setImmediate(resolve))
    expect(existsSync(path)).toBe(false)
    child.kill('SIGCONT')
    expect(await output).toBe('went on\n')
  })
})
