import { z } from 'zod'
import { text, timestampSchema } from './common.js'

/** What entries are about. */
export const auditResources = [
  'capsule',
  'snapshot',
  'template',
  'api_key',
  'user',
  'session',
  'team',
  'invitation',
  'plan',
  'channel',
  'registry',
  'secret',
  'host',
  'host_authority',
] as const
export const auditOutcomes = ['accepted', 'success', 'failure'] as const

/** Media type of an export: one entry a line. */
export const AUDIT_EXPORT_TYPE = 'application/x-ndjson'

/** One entry of the audit trail. */
export const auditEntrySchema = z
  .object({
    id: z.string(),
    team_id: z.string(),
    created_at: timestampSchema,
    actor_type: z
      .string()
      .describe('`key`, `user`: a person, `token`: who has a token of the capsule itself, or `system`: the platform.'),
    actor_id: z.string().optional(),
    actor_name: z.string().optional().describe('Of a key; of a person the address is `actor_email`.'),
    actor_email: z
      .string()
      .optional()
      .describe('Of the account `actor_id` as it is now, absent once it is deleted. No part of the hash.'),
    action: z.string().describe('Such as `capsule.create`, `api_key.revoke`.'),
    resource_type: z.string(),
    resource_id: z.string(),
    resource_email: z.string().optional().describe('As `actor_email`, of the account that this is about.'),
    scope: z.string().describe('`team`: capsules and templates. `admin`: the team itself and its keys.'),
    outcome: z
      .string()
      .describe('`accepted`: asked for and begun; its end is an entry of its own with the same `operation_id`.'),
    request_id: z.string().optional(),
    ip: z.string().optional(),
    details: z.record(z.string(), z.string()),
    seq: z.number().optional().describe('Place in the chain of the team, without gaps; absent for a moment.'),
    prev_hash: z.string().optional().describe('Hash of the entry before.'),
    hash: z
      .string()
      .optional()
      .describe('SHA-256, hexadecimal, of all other fields but the addresses in their canonical form.'),
  })
  .meta({ id: 'AuditEntry' })
/** An entry on the wire and in an export. */
export type AuditEntry = z.infer<typeof auditEntrySchema>

const list = text(1000, 1).transform((value) => value.split(','))

/** Query of `GET /v1/audit-logs`; what is given must all be so. */
export const listAuditQuerySchema = z.object({
  actor_id: text(64, 1).optional(),
  action: z
    .union([list, z.array(list).transform((lists) => lists.flat())])
    .optional()
    .describe('One or more, repeated or separated by commas.'),
  resource_type: z.enum(auditResources).optional(),
  resource_id: text(64, 1).optional(),
  outcome: z.enum(auditOutcomes).optional(),
  since: z.iso.datetime({ offset: true }).optional().describe('From this time on.'),
  until: z.iso.datetime({ offset: true }).optional().describe('Before this time.'),
  cursor: text(256, 1).optional().describe('`next_cursor` of the page before.'),
  limit: z.coerce.number().int().min(1).max(200).default(50),
})
/** As the server reads it. */
export type ListAuditQuery = z.output<typeof listAuditQuerySchema>

/** A page, newest first. */
export const auditPageSchema = z
  .object({ items: z.array(auditEntrySchema), next_cursor: z.string().optional().describe('Absent on the last page.') })
  .meta({ id: 'AuditPage' })
/** A page on the wire. */
export type AuditPage = z.infer<typeof auditPageSchema>

/** Query of `GET /v1/audit-logs/export`. */
export const exportAuditQuerySchema = z.object({
  after_seq: z.coerce.number().int().min(0).default(0).describe('To go on where an earlier export ended.'),
})
