import type { IncomingMessage, ServerResponse } from 'node:http'
import { isClientPath } from '@wrenn/protocol/guest'
import { ROUTING_HEADERS } from './destination.js'

const PREFLIGHT_KEPT_SEC = 7_200

/**
 * Pages from anywhere may speak with a guest agent: nothing that a browser sends by itself opens one, so a page can do no more than who runs
 * it and knows the token.
 */
export const AGENT_CORS = ['Access-Control-Allow-Origin', '*', 'Access-Control-Expose-Headers', '*'] as const

/** Lets pages read an answer of ours. */
export function allowPages(response: ServerResponse): void {
  for (let at = 0; at < AGENT_CORS.length; at += 2) response.setHeader(AGENT_CORS[at] ?? '', AGENT_CORS[at + 1] ?? '')
}

/** Whether a browser asks what a page may send. */
export function isPreflight({ method, headers }: IncomingMessage): boolean {
  return method === 'OPTIONS' && headers['access-control-request-method'] !== undefined
}

/** The same on an origin that capsules share, where the question itself names none: what will be sent names one. */
export function isSharedPreflight(request: IncomingMessage): boolean {
  const asked = String(request.headers['access-control-request-headers'] ?? '').toLowerCase()
  const names = asked.split(',').map((name) => name.trim())
  return (
    isPreflight(request) &&
    isClientPath((request.url ?? '').split('?', 1)[0] ?? '') &&
    names.includes(ROUTING_HEADERS.id)
  )
}

export function sendPreflight(request: IncomingMessage, response: ServerResponse): void {
  // `*` would not stand for `Authorization`. The header is one line of text by the parser's word.
  const asked = request.headers['access-control-request-headers']
  response.writeHead(204, {
    'access-control-allow-origin': '*',
    'access-control-allow-methods': 'GET, HEAD, POST',
    ...(asked === undefined ? {} : { 'access-control-allow-headers': String(asked) }),
    'access-control-max-age': String(PREFLIGHT_KEPT_SEC),
    vary: 'Access-Control-Request-Headers',
  })
  response.end()
}
