import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
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
})
