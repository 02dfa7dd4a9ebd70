import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { debianSources, derivedSources, readHostSources, renderSources } from './apt-sources.js'

const deb822 = `# comment
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm
 bookworm-updates trixie
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://node.test/node_20.x
Suites: nodistro
Components: main

Types: deb
URIs: https://other.test/tool
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/other.gpg

Enabled: no
Types: deb
URIs: http://mirror.test/disabled
Suites: bookworm
Components: main
`

const oneLine = `deb-src http://mirror.test/debian bookworm main
# deb http://mirror.test/commented bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/other.gpg] https://other.test/x bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/security bookworm-security main # why
deb http://mirror.test/stable bookworm stable
`

describe('debianSources', () => {
  it('takes only the stanzas of Debian itself from deb822 files', () => {
    expect(debianSources([{ name: 'a.sources', text: deb822 }], 'bookworm')).toEqual([
      {
        uris: ['http://mirror.test/debian'],
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main', 'contrib'],
      },
    ])
  })

  it('takes only the lines of Debian itself from one-line files', () => {
    expect(debianSources([{ name: 'sources.list', text: oneLine }], 'bookworm')).toEqual([
      { uris: ['http://mirror.test/security'], suites: ['bookworm-security'], components: ['main'] },
    ])
  })

  it('renders what it can read again', () => {
    const sources = debianSources([{ name: 'a.sources', text: deb822 }], 'bookworm')
    expect(debianSources([{ name: 'b.sources', text: renderSources(sources) }], 'bookworm')).toEqual(sources)
  })
})

describe('derivedSources', () => {
  const main = ['main']

  it('gives the mirrors of a host of another release the suites of the wanted one', () => {
    const text = `deb http://mirror.test/debian trixie main
deb http://mirror.test/debian trixie-updates main
deb http://mirror.test/debian trixie-backports main
deb http://mirror.test/security trixie-security main
deb https://other.test/tool trixie-pgdg main
deb https://other.test/ubuntu noble main
deb [signed-by=/usr/share/keyrings/other.gpg] https://other.test/x trixie main
`
    expect(derivedSources([{ name: 'sources.list', text }], 'bookworm')).toEqual([
      { uris: ['http://mirror.test/debian'], suites: ['bookworm'], components: main },
      { uris: ['http://mirror.test/debian'], suites: ['bookworm-updates'], components: main },
      { uris: ['http://mirror.test/security'], suites: ['bookworm-security'], components: main },
    ])
  })

  it('knows suites by their role, and the security archive by its old name', () => {
    const text = 'deb http://mirror.test/debian sid main\ndeb http://mirror.test/security buster/updates main\n'
    expect(derivedSources([{ name: 'sources.list', text }], 'bookworm').map(({ suites }) => suites)).toEqual([
      ['bookworm'],
      ['bookworm-security'],
    ])
  })

  it('is nothing where the archive itself is not among them', () => {
    const text = 'deb http://mirror.test/security trixie-security main\n'
    expect(derivedSources([{ name: 'sources.list', text }], 'bookworm')).toEqual([])
  })
})

describe('readHostSources', () => {
  const hosts: readonly (readonly [string, Readonly<Record<string, string>>, string])[] = [
    [
      'its own of that release',
      { 'sources.list': 'deb http://own.test/debian bookworm main\n' },
      'http://own.test/debian',
    ],
    [
      'a mirror of another release',
      {
        'sources.list.d/debian.sources':
          'Types: deb\nURIs: http://next.test/debian\nSuites: trixie\nComponents: main\n',
      },
      'http://next.test/debian',
    ],
    [
      'Debian’s own servers on another distribution',
      { 'sources.list.d/ubuntu.sources': 'Types: deb\nURIs: http://ubuntu.test\nSuites: noble\nComponents: main\n' },
      'http://deb.debian.org/debian',
    ],
    ['Debian’s own servers where nothing is set up', {}, 'http://deb.debian.org/debian'],
  ]

  it.each(hosts)('takes %s', async (_, files, uri) => {
    const etcApt = await mkdtemp(join(tmpdir(), 'wrenn-apt-'))
    try {
      await mkdir(join(etcApt, 'sources.list.d'))
      for (const [name, text] of Object.entries(files)) await writeFile(join(etcApt, name), text)
      const [first] = await readHostSources('bookworm', etcApt)
      expect(first).toMatchObject({ uris: [uri], suites: expect.arrayContaining(['bookworm']) })
    } finally {
      await rm(etcApt, { recursive: true })
    }
  })
})
