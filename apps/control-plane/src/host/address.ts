import { readFileSync } from 'node:fs'
import type { SecureContextOptions } from 'node:tls'
import { AppError } from '@wrenn/base'
import type { HostAgentTls } from '../config.js'

/** Where a host agent listens. */
type HostAddress = { readonly path: string; readonly url?: never } | { readonly path?: never; readonly url: URL }

/** @throws AppError `invalid_config` */
export function parseAddress(address: string): HostAddress {
  const path = /^unix:(?:\/\/)?(\/.+)$/.exec(address)?.[1]
  if (path !== undefined) return { path }
  if (/^https?:\/\/[^/]+\/?$/.test(address) && URL.canParse(address)) return { url: new URL(address) }
  throw new AppError(
    'invalid_config',
    'WRENN_HOST_AGENT_ADDRESS must be unix:/path, http://host:port or https://host:port.',
  )
}

/** Reads the PEM files. */
export function readTls(tls: HostAgentTls | undefined): SecureContextOptions {
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file))
  const [ca, cert, key] = [read(tls?.caFile), read(tls?.certFile), read(tls?.keyFile)]
  return { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }), minVersion: 'TLSv1.3' }
}
