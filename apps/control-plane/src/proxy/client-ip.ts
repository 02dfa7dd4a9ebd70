import type { IncomingMessage } from 'node:http'
import proxyAddr from '@fastify/proxy-addr'

/** Where a request comes from. */
export type ClientIp = (request: IncomingMessage) => string

/** Reads it as the routes of the API do: `X-Forwarded-For` counts as far as those who wrote it are trusted. */
export function clientIpOf(trustedProxies: readonly string[]): ClientIp {
  const isTrusted = proxyAddr.compile([...trustedProxies])
  return (request) => proxyAddr(request, isTrusted)
}
