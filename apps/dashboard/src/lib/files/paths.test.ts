import { describe, expect, it } from 'vitest'
import { crumbs, imageType, joined } from './paths.js'

describe('crumbs', () => {
  it('leads from the root to the directory', () => {
    expect(crumbs('/var/log')).toEqual([
      { name: '/', path: '/' },
      { name: 'var', path: '/var' },
      { name: 'log', path: '/var/log' },
    ])
    expect(crumbs('/')).toEqual([{ name: '/', path: '/' }])
  })
})

describe('joined', () => {
  it('puts one slash between', () => {
    expect([joined('/', 'etc'), joined('/etc', 'hosts')]).toEqual(['/etc', '/etc/hosts'])
  })
})

describe('previews', () => {
  it('show pictures by their names, and no programs', () => {
    expect([imageType('a.PNG'), imageType('b.svg'), imageType('constructor'), imageType('c.constructor')]).toEqual([
      'image/png',
      undefined,
      undefined,
      undefined,
    ])
  })
})
