import { expect, it } from 'vitest'
import { layoutOf, ownEntries } from './layout.js'

it('names the entries of its directory, each once, and never the directory itself', () => {
  expect([...ownEntries(layoutOf('/srv/wrenn'))].sort()).toEqual([
    'api-key',
    'bin',
    'build-files',
    'encryption-key',
    'host-identity.json',
    'journal',
    'logs',
    'outbox',
    'postgres',
    'run',
    'tls',
  ])
})
