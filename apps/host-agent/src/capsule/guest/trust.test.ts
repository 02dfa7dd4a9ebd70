import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { trustScript } from './trust.js'

const certificate = (text: string): string => `-----BEGIN CERTIFICATE-----\n${text}\n-----END CERTIFICATE-----`
const blockOf = (text: string): string => `# wrenn-edge begin\n${certificate(text)}\n# wrenn-edge end\n`
const BUNDLE = 'etc/ssl/certs/ca-certificates.crt'

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'wrenn-trust-'))
})
afterEach(async () => {
  await rm(root, { recursive: true })
})

async function run(text: string): Promise<unknown> {
  const env = { PATH: process.env.PATH, CERTIFICATE: certificate(text) }
  return await new Promise((resolve) => {
    execFile('/bin/sh', ['-c', trustScript(root)], { env }, (error) => resolve(error?.code ?? 0))
  })
}
const read = async (path: string): Promise<string> => await readFile(join(root, path), 'utf8')
const write = async (path: string, text: string): Promise<void> => {
  await mkdir(dirname(join(root, path)), { recursive: true })
  await writeFile(join(root, path), text)
}

describe('a certificate that a guest is to trust', () => {
  it('is put beside those that there are, once, and in place of an earlier one', async () => {
    await write(BUNDLE, `${certificate('public')}\n`)
    for (const text of ['first', 'second', 'second']) expect(await run(text)).toBe(0)
    expect(await read(BUNDLE)).toBe(`${certificate('public')}\n${blockOf('second')}`)
    expect(await read('usr/local/share/ca-certificates/wrenn-edge.crt')).toBe(`${certificate('second')}\n`)
  })

  it('takes along those of a distribution that has them elsewhere', async () => {
    await write('etc/pki/tls/certs/ca-bundle.crt', `${certificate('fedora')}\n`)
    expect(await run('ours')).toBe(0)
    expect(await read(BUNDLE)).toBe(`${certificate('fedora')}\n${blockOf('ours')}`)
  })

  it('says where it is alone, so that nothing is told to read only that', async () => {
    expect(await run('ours')).toBe(3)
    expect(await run('ours')).toBe(3)
    expect(await read(BUNDLE)).toBe(blockOf('ours'))
  })
})
