import { actorOf } from './auth.js'
import type { App, Services } from './context.js'

/**
 * Notes, for teams that want it, what the requests of routes that say so have done inside a capsule, once they are answered: so nobody waits
 * for it. What was refused before the capsule could be used is in no entry.
 */
export function recordAccess(app: App, { accessLog }: Services): void {
  app.addHook('onResponse', async (request, reply) => {
    const { access, params, routeOptions, principal } = request
    const { records } = routeOptions.config
    if (records === undefined || access === null || principal === null) return
    const id = typeof params === 'object' && params !== null && 'id' in params ? String(params.id) : ''
    const record = await accessLog.recorderFor({ teamId: principal.teamId, id }, actorOf(request))
    if (record === undefined) return
    const { statusCode, raw } = reply
    const durationMs = Math.round(reply.elapsedTime)
    const cut = raw.writableFinished ? undefined : 'true'
    record(records, statusCode < 400 ? 'success' : 'failure', {
      ...access,
      status: statusCode,
      duration_ms: durationMs,
      cut,
    })
  })
}
