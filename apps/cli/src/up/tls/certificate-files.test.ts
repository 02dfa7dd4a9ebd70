import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '@wrenn/base'
import { createAuthority, issueCertificate } from '@wrenn/certificates'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CertificateFiles } from './certificate-files.js'

const gid = process.getgid?.() ?? 0
let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-certificates-'))
})
afterEach(() => rm(dir, { recursive: true }))

async function served({ file }: CertificateFiles): Promise<string> {
  return await readFile(file, 'utf8')
}

describe('certificates of a platform', () => {
  it('are made once by an authority of its own, and found again', async () => {
    const options = { source: { kind: 'local', domains: ['sbx.test'] } as const, dir, gid, onProblem: () => {} }
    using first = await CertificateFiles.place(options)
    const made = await served(first)
    using second = await CertificateFiles.place(options)
    expect(await served(second)).toEqual(made)
    expect(made).toContain(await readFile(first.authorityFile ?? '', 'utf8'))
  })

  it('leave nothing of a start that was killed as it wrote one', async () => {
    const unfinished = join(dir, 'served.pem.0a1b2c3d.tmp')
    await writeFile(unfinished, 'half')
    const options = { source: { kind: 'local', domains: ['sbx.test'] } as const, dir, gid, onProblem: () => {} }
    using _files = await CertificateFiles.place(options)
    await expect(stat(unfinished)).rejects.toThrow('ENOENT')
  })

  it('have another authority for other domains', async () => {
    const place = (domain: string) =>
      CertificateFiles.place({ source: { kind: 'local', domains: [domain] }, dir, gid, onProblem: () => {} })
    using first = await place('one.test')
    using second = await place('two.test')
    expect(first.authorityFile).not.toBe(second.authorityFile)
  })

  it('keep the authority’s key to root, and the served one to root and the control plane', async () => {
    using files = await CertificateFiles.place({
      source: { kind: 'local', domains: ['sbx.test'] },
      dir,
      gid,
      onProblem: () => {},
    })
    const mode = async (path: string): Promise<string> => ((await stat(path)).mode & 0o777).toString(8)
    expect(await mode((files.authorityFile ?? '').replace(/pem$/, 'key'))).toBe('600')
    expect(await mode(files.file)).toBe('640')
  })

  it('follow files of the operator’s, and survive a moment without them', async () => {
    const given = { certFile: join(dir, 'full.pem'), keyFile: join(dir, 'priv.pem') }
    const authority = await createAuthority('Test', ['sbx.test'])
    const put = async (): Promise<string> => {
      const { cert, key } = await issueCertificate(authority, ['sbx.test'])
      await writeFile(given.keyFile, key)
      await writeFile(given.certFile, cert)
      return `${cert}\n${key}\n`
    }
    const first = await put()
    const problems: string[] = []
    const onProblem = (problem: string) => void problems.push(problem)
    using files = await CertificateFiles.place({
      source: { kind: 'given', ...given },
      dir: join(dir, 'tls'),
      gid,
      onProblem,
      lookEveryMs: 10,
    })
    expect(await served(files)).toEqual(first)
    await rm(given.certFile)
    await waitFor(async () => problems[0], { timeoutMs: 10_000, what: 'word of the missing file' })
    expect(problems[0]).toContain('--tls-cert')
    expect(await served(files)).toEqual(first)
    const second = await put()
    await waitFor(async () => ((await served(files)) === second ? true : undefined), {
      timeoutMs: 10_000,
      what: 'the renewed certificate',
    })
  })

  it('go on with what was placed when a renewal is half done at a start', async () => {
    const given = { certFile: join(dir, 'full.pem'), keyFile: join(dir, 'priv.pem') }
    const authority = await createAuthority('Test', ['sbx.test'])
    const [old, renewed] = [
      await issueCertificate(authority, ['a.test']),
      await issueCertificate(authority, ['a.test']),
    ]
    await writeFile(given.certFile, old.cert)
    await writeFile(given.keyFile, old.key)
    const problems: string[] = []
    const onProblem = (problem: string) => void problems.push(problem)
    const options = { source: { kind: 'given', ...given } as const, dir: join(dir, 'tls'), gid, onProblem }
    const before = await (async () => {
      using files = await CertificateFiles.place(options)
      return await served(files)
    })()
    await writeFile(given.certFile, renewed.cert)
    using files = await CertificateFiles.place(options)
    expect(await served(files)).toBe(before)
    expect(problems.join()).toContain('--tls-key is not the key of --tls-cert')
    const elsewhere = { ...options, dir: join(dir, 'never-placed') }
    await expect(CertificateFiles.place(elsewhere)).rejects.toThrow('--tls-key is not the key of --tls-cert')
  })

  it('name the option of a file that is not there', async () => {
    const source = { kind: 'given', certFile: join(dir, 'none'), keyFile: join(dir, 'none') } as const
    await expect(CertificateFiles.place({ source, dir, gid, onProblem: () => {} })).rejects.toThrow('--tls-cert')
  })
})
