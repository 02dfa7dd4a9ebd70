import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { chooseCoding, readDashboard } from './dashboard.js'

let dir = ''

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-dashboard-'))
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

async function pack(content: unknown): Promise<string> {
  const file = join(dir, 'dashboard.pack')
  await writeFile(file, JSON.stringify(content))
  return file
}

const base64 = (text: string) => Buffer.from(text).toString('base64')

describe('readDashboard', () => {
  it('lets the scripts of the shell run by their hashes, and no other that is written into a page', async () => {
    const html = '<script>start()</script><script type="module">more()</script><script src="/_app/a.js"></script>'
    const file = await pack({ files: [{ path: '/index.html', type: 'text/html', body: base64(html) }] })
    const dashboard = await readDashboard(file)
    // printf %s 'start()' | openssl dgst -sha256 -binary | base64, and the same of more()
    expect(dashboard?.contentSecurityPolicy).toContain(
      "script-src 'self' 'sha256-DIm7WJS6ZKDYe5qFLPy+h4JFI9Bol5QmYC57mt3Fb00=' 'sha256-tQCBHdhZF+YZA1SfmY9EcKxkOEB4SQok5ogPYW6m+QI=';",
    )
    expect(dashboard?.contentSecurityPolicy).not.toMatch(/unsafe|\*/)
    expect(dashboard?.contentSecurityPolicy).toContain("frame-ancestors 'none'")
  })

  it('is nothing where nothing was built', async () => {
    expect(await readDashboard(join(dir, 'missing.pack'))).toBeUndefined()
  })

  it('refuses what is no pack', async () => {
    await expect(readDashboard(await pack({ files: [{ path: 'index.html' }] }))).rejects.toThrow()
    await expect(readDashboard(await pack({ files: [] }))).rejects.toThrow('has no /index.html')
  })
})

describe('chooseCoding', () => {
  const body = Buffer.from('')
  const file = { type: 'text/css', body, coded: { br: body, gzip: body } }

  it('takes the better of those that the client takes', () => {
    expect(chooseCoding(file, 'gzip, deflate, br')).toBe('br')
    expect(chooseCoding(file, 'gzip;q=1.0')).toBe('gzip')
    expect(chooseCoding(file, '*')).toBe('br')
  })

  it('takes none that the client or the file has not', () => {
    expect(chooseCoding(file, 'br;q=0, gzip;q=0.0')).toBeUndefined()
    expect(chooseCoding(file, undefined)).toBeUndefined()
    expect(chooseCoding(file, 'identity')).toBeUndefined()
    expect(chooseCoding({ ...file, coded: {} }, 'br')).toBeUndefined()
  })
})
