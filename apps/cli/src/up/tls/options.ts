import { AppError } from '@wrenn/base'
import type { CliConfig } from '../../config.js'
import type { CertificateSource } from './certificate-files.js'

const DEFAULT_PORT = 8443

/** As given to `wrenn up`. */
export interface TlsArguments {
  readonly domain?: string
  readonly tls?: boolean
  /** Where the plain listener is. */
  readonly host?: string
  readonly tlsHost?: string
  readonly tlsPort?: number
  readonly tlsCert?: string
  readonly tlsKey?: string
}

/** What a platform serves by TLS. */
export interface TlsSetup {
  readonly host: string
  readonly port: number
  /** That the certificate is for; the first is what people are told. */
  readonly domains: readonly string[]
  readonly source: CertificateSource
}

/**
 * Options before environment; `undefined` for a platform without TLS.
 * @throws AppError `invalid_config` for what does not go together
 */
export function tlsSetup(given: TlsArguments, config: CliConfig): TlsSetup | undefined {
  const certFile = given.tlsCert ?? config.tls.certFile
  const keyFile = given.tlsKey ?? config.tls.keyFile
  const port = given.tlsPort ?? config.tls.port
  const host = given.tlsHost ?? config.tls.host ?? given.host ?? config.host
  if (!given.tls && certFile === undefined && keyFile === undefined && port === undefined) return undefined
  const domains = domainsOf(given, config).map((domain) => domain.replace(/:\d+$/, ''))
  const setup = { host, port: port ?? DEFAULT_PORT, domains }
  if (certFile !== undefined && keyFile !== undefined) return { ...setup, source: { kind: 'given', certFile, keyFile } }
  if (certFile !== undefined || keyFile !== undefined) {
    throw new AppError('invalid_config', '--tls-cert and --tls-key are given together.')
  }
  const dotted = certifiable(domains)
  return { ...setup, domains: dotted, source: { kind: 'local', domains: dotted } }
}

/** Names below which ports have their URLs. */
export function domainsOf({ domain }: TlsArguments, config: CliConfig): readonly string[] {
  const names = (domain ?? config.proxyDomain ?? 'localhost').split(',').map((name) => name.trim().toLowerCase())
  const wrong = names.find((name) => !/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d{1,5})?$/.test(name))
  if (wrong === undefined) return names
  throw new AppError('invalid_config', `--domain must be a host name such as sbx.example, not ${wrong.slice(0, 100)}.`)
}

/** RFC 6125 leaves it to clients whether `*` may stand before a top-level name; Node.js and OpenSSL say no. */
function certifiable(domains: readonly string[]): readonly string[] {
  const dotted = domains.filter((domain) => domain.includes('.'))
  if (dotted.length > 0) return dotted
  const message = `No client accepts a certificate for *.${domains[0]}: name a domain with a dot, as in --domain sbx.test.`
  throw new AppError('invalid_config', message)
}
