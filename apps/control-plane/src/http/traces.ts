import { capsuleIds, type Span } from '@wrenn/base'
import { errorKind } from '@wrenn/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { App, Services } from './context.js'

/** Asked every few seconds by whoever watches the platform, and of no interest to anybody after that. */
const untraced: ReadonlySet<string> = new Set(['/health', '/ready', '/metrics'])

const SWITCHING_PROTOCOLS = 101

/**
 * Measures each request as a span, on with the trace of its client if there is one; what is done for it has that span active. A span knows
 * a request by its route: paths, queries, headers and bodies have secrets and names of users in them.
 */
export function traceRequests(app: App, { tracer }: Pick<Services, 'tracer'>): void {
  app.decorateRequest('span', null)
  if (!tracer.isOn) return
  app.addHook('onRequest', (request, reply, done) => {
    const { method, id } = request
    const route = request.routeOptions.url
    if (route !== undefined && untraced.has(route)) return done()
    const fields = { 'http.request.method': method, 'http.route': route, 'wrenn.request_id': id }
    const name = route === undefined ? method : `${method} ${route}`
    const span = tracer.begin(name, { kind: 'server', from: request.headers, fields })
    request.span = span
    // Also of a client that goes away, and of a WebSocket when it is closed.
    reply.raw.once('close', () => end(span, request, reply))
    tracer.within(span, done)
  })
  // A body is read where the connection's bytes come in, outside of what was active before.
  app.addHook('preValidation', (request, _reply, done) => {
    if (request.span === null) done()
    else tracer.within(request.span, done)
  })
}

/** Says that a request failed: a client that asked for what cannot be is no failure of ours, and says only why. */
export function tellFailure({ span }: FastifyRequest, code: string): void {
  if (errorKind(code).status >= 500) span?.fail(code)
  else span?.set({ 'error.type': code })
}

function end(span: Span, request: FastifyRequest, reply: FastifyReply): void {
  const { principal, params, ws } = request
  const { statusCode: status, writableFinished, headersSent } = reply.raw
  const isSocket = ws && !headersSent
  span.set({
    'http.response.status_code': isSocket ? SWITCHING_PROTOCOLS : headersSent ? status : undefined,
    'wrenn.client_gone': isSocket || writableFinished ? undefined : true,
    'wrenn.team_id': principal?.teamId,
    'wrenn.capsule_id': capsuleIdOf(params),
  })
  if (headersSent && status >= 500) span.fail(String(status))
  span.end()
}

function capsuleIdOf(params: unknown): string | undefined {
  if (typeof params !== 'object' || params === null || !('id' in params)) return undefined
  return typeof params.id === 'string' && capsuleIds.is(params.id) ? params.id : undefined
}
