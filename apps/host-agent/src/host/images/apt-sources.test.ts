import { describe, expect, it } from 'vitest'
import { debianSources, renderSources } from './apt-sources.js'

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
