import { text } from '@wrenn/protocol'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { principalOf } from '../../http/auth.js'
import type { App, Services } from '../../http/context.js'
import { type LogEntry, type LogLevel, lifecycleActions, logLevels, processActions, toLogEntry } from '../log-entry.js'
import { hidden, idOf, sandboxParams } from '../request.js'

const MAX_LINES = 1_000
/** Looked through for a level or a text before what was found is answered. */
const MAX_LOOKED_AT = 10_000
/** The last moment that a date can say. */
const MAX_MS = 8.64e15
/** What is done inside a sandbox is written up to half a second after it happened. Whoever follows by the last time that they saw would pass it by. */
const SETTLED_MS = 1_000

const limit = z.coerce.number().int().min(0).max(MAX_LINES).default(MAX_LINES)
const milliseconds = z.coerce.number().int().min(0).max(MAX_MS).optional()

const oldQuery = z.object({ start: milliseconds, limit })
const query = z.object({
  cursor: milliseconds,
  limit,
  direction: z.enum(['forward', 'backward']).default('forward'),
  level: z.enum(logLevels).default('debug'),
  search: text(256).default(''),
})

interface Wish {
  readonly cursor?: number | undefined
  readonly limit: number
  readonly direction: 'forward' | 'backward'
  readonly level: LogLevel
  readonly search: string
}

/** What happened to a sandbox, and which processes ran in it, as the audit trail of its team has it. */
export function logRoutes(app: App, { audit, capsules }: Services): void {
  app.get(
    '/sandboxes/:id/logs',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, params: sandboxParams, querystring: oldQuery } },
    async (request) => {
      const { start: cursor, limit } = request.query
      const entries = await read(request, { cursor, limit, direction: 'forward', level: 'debug', search: '' })
      return { logs: entries.map((entry) => toLine(idOf(request), entry)), logEntries: entries.map(toEntry) }
    },
  )

  app.get(
    '/v2/sandboxes/:id/logs',
    { config: { permission: 'capsules.read' }, schema: { ...hidden, params: sandboxParams, querystring: query } },
    async (request) => ({ logs: (await read(request, request.query)).map(toEntry) }),
  )

  /** Also of one that has ended, for as long as its record is kept. @throws AppError `capsule_not_found` */
  async function read(
    request: FastifyRequest<{ Params: { id: string } }>,
    { cursor, limit, direction, level, search }: Wish,
  ): Promise<LogEntry[]> {
    const { teamId, permissions } = principalOf(request)
    const { id, state } = await capsules.get(teamId, idOf(request))
    const isForward = direction === 'forward'
    const at = cursor === undefined ? undefined : new Date(cursor)
    const rows = audit.aboutCapsule(teamId, id, {
      actions: permissions.has('capsules.use') ? [...lifecycleActions, ...processActions] : lifecycleActions,
      since: isForward ? at : undefined,
      until: isForward ? undefined : at,
      order: isForward ? 'asc' : 'desc',
      settledMs: state === 'stopped' || state === 'error' ? 0 : SETTLED_MS,
    })
    const found: LogEntry[] = []
    if (limit === 0) return found
    let lookedAt = 0
    for await (const row of rows) {
      const entry = toLogEntry(row)
      if (entry !== undefined && isWanted(entry, level, search)) found.push(entry)
      if (found.length >= limit || ++lookedAt >= MAX_LOOKED_AT) break
    }
    return found
  }
}

function isWanted(entry: LogEntry, level: LogLevel, search: string): boolean {
  return logLevels.indexOf(entry.level) >= logLevels.indexOf(level) && entry.message.includes(search)
}

function toEntry({ at, level, message, fields }: LogEntry) {
  return { timestamp: at.toISOString(), level, message, fields }
}

/** As the older clients read it: all of it as the text of an object. */
function toLine(sandboxID: string, { at, level, message, fields }: LogEntry) {
  return { timestamp: at.toISOString(), line: JSON.stringify({ level, message, ...fields, sandboxID }) }
}
