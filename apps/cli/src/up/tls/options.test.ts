import { describe, expect, it } from 'vitest'
import { readConfig } from '../../config.js'
import { domainsOf, tlsSetup } from './options.js'

const config = readConfig({})

describe('TLS of a platform', () => {
  it('is there when it is asked for, by option or environment', () => {
    expect(tlsSetup({}, config)).toBeUndefined()
    const local = {
      host: '127.0.0.1',
      port: 8443,
      domains: ['sbx.test'],
      source: { kind: 'local', domains: ['sbx.test'] },
    }
    expect(tlsSetup({ domain: 'sbx.test', tls: true }, config)).toEqual(local)
    const env = { WRENN_PROXY_DOMAIN: 'sbx.test:443', WRENN_TLS_PORT: '443', WRENN_TLS_CERT: '/c', WRENN_TLS_KEY: '/k' }
    const given = { kind: 'given', certFile: '/c', keyFile: '/k' }
    expect(tlsSetup({}, readConfig(env))).toEqual({
      host: '127.0.0.1',
      port: 443,
      domains: ['sbx.test'],
      source: given,
    })
  })

  it('is where it is told, else where the plain listener is', () => {
    const hostOf = (given: object, env: Record<string, string> = {}) =>
      tlsSetup({ domain: 'sbx.test', tls: true, ...given }, readConfig(env))?.host
    expect(hostOf({ host: '10.0.0.1' })).toBe('10.0.0.1')
    expect(hostOf({}, { WRENN_HOST: '10.0.0.2' })).toBe('10.0.0.2')
    expect(hostOf({ host: '10.0.0.1' }, { WRENN_TLS_HOST: '0.0.0.0' })).toBe('0.0.0.0')
    expect(hostOf({ tlsHost: '10.0.0.3' }, { WRENN_TLS_HOST: '0.0.0.0' })).toBe('10.0.0.3')
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
