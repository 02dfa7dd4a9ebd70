import { describe, expect, it } from 'vitest'
import { readConfig } from '../../config.js'
import { domainsOf, tlsSetup } from './options.js'

const config = readConfig({})

describe('TLS of a platform', () => {
  it('is there when it is asked for, by option or environment', () => {
    expect(tlsSetup({}, config)).toBeUndefined()
    const local = { port: 8443, domains: ['sbx.test'], source: { kind: 'local', domains: ['sbx.test'] } }
    expect(tlsSetup({ domain: 'sbx.test', tls: true }, config)).toEqual(local)
    const env = { WRENN_PROXY_DOMAIN: 'sbx.test:443', WRENN_TLS_PORT: '443', WRENN_TLS_CERT: '/c', WRENN_TLS_KEY: '/k' }
    const given = { kind: 'given', certFile: '/c', keyFile: '/k' }
    expect(tlsSetup({}, readConfig(env))).toEqual({ port: 443, domains: ['sbx.test'], source: given })
  })

  it('needs certificate and key together', () => {
    expect(() => tlsSetup({ domain: 'sbx.test', tlsCert: '/c' }, config)).toThrow('--tls-key')
  })

  it('makes no certificate that no client would accept', () => {
    expect(() => tlsSetup({ tls: true }, config)).toThrow('--domain sbx.test')
    const both = tlsSetup({ domain: 'localhost,sbx.test', tls: true }, config)
    expect(both?.source).toEqual({ kind: 'local', domains: ['sbx.test'] })
  })

  it('refuses what is no host name', () => {
    expect(() => domainsOf({ domain: 'http://sbx.test' }, config)).toThrow('--domain')
    expect(domainsOf({ domain: 'Sbx.Test, b.example:8443' }, config)).toEqual(['sbx.test', 'b.example:8443'])
  })
})
