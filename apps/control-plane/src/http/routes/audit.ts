import { Readable } from 'node:stream'
import { AUDIT_EXPORT_TYPE, auditPageSchema, exportAuditQuerySchema, listAuditQuerySchema } from '@wrenn/protocol'
import { z } from 'zod'
import { principalOf } from '../auth.js'
import type { App, Services } from '../context.js'
import { errors } from '../schemas.js'

const lines = z.any().meta({ type: 'string' }).describe('AuditEntry after AuditEntry, one a line.')

/** What happened in the team. */
export function auditRoutes(app: App, { audit }: Services): void {
  app.get(
    '/v1/audit-logs',
    {
      config: { permission: 'audit.read' },
      schema: {
        tags: ['audit'],
        summary: 'List what happened in the team, newest first.',
        querystring: listAuditQuerySchema,
        response: { 200: auditPageSchema, ...errors },
      },
    },
    (request) => audit.list(principalOf(request).teamId, request.query),
  )

  app.get(
    '/v1/audit-logs/export',
    {
      exposeHeadRoute: false,
      config: { permission: 'audit.read' },
      schema: {
        tags: ['audit'],
        summary: 'All of the audit trail, oldest first, one entry a line, as its chain of hashes can be verified.',
        description:
          'A connection that is cut says that the export is not complete; go on with `after_seq`, the `seq` of the last whole line.',
        produces: [AUDIT_EXPORT_TYPE],
        querystring: exportAuditQuerySchema,
        response: { 200: lines, ...errors },
      },
    },
    async (request, reply) => {
      const body = Readable.from(audit.export(principalOf(request).teamId, request.query.after_seq), {
        objectMode: false,
      })
      return await reply.type(AUDIT_EXPORT_TYPE).header('cache-control', 'no-store').send(body)
    },
  )
}
