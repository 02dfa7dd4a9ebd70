import { execFileSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Layout, layoutOf } from './layout.js'
import { readSetUpLink } from './set-up-link.js'

let dir: string
let layout: Layout

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "wrenn-test-it's "))
  layout = layoutOf(dir)
  await mkdir(layout.runDir)
})
afterEach(async () => {
  await rm(dir, { recursive: true })
})

describe('the link of the set-up', () => {
  it('is not there without a code', async () => {
    expect(await readSetUpLink(layout, 'http://127.0.0.1:8000')).toBeUndefined()
    await writeFile(layout.setUpFile, '')
    expect(await readSetUpLink(layout, 'http://127.0.0.1:8000')).toBeUndefined()
  })

  it('leads to the page of this machine, or to the one that people reach', async () => {
    await writeFile(layout.setUpFile, 'abc\n')
    expect(await readSetUpLink(layout, 'http://127.0.0.1:8000')).toMatchObject({
      url: 'http://localhost:8000/setup#code=abc',
    })
    expect(await readSetUpLink(layout, 'https://wrenn.example/below/')).toMatchObject({
      url: 'https://wrenn.example/below/setup#code=abc',
    })
  })

  it('is what its command prints, which has no code in it', async () => {
    await writeFile(layout.setUpFile, 'abc\n')
    const link = await readSetUpLink(layout, 'http://127.0.0.1:8000')
    expect(link?.command).not.toContain('abc')
    expect(execFileSync('/bin/sh', ['-c', link?.command ?? '']).toString()).toBe(`${link?.url}\n`)
  })
})
