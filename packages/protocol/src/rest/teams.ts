import { z } from 'zod'
import { requestBody, text, timestampSchema } from './common.js'
import { emailSchema, userIdSchema } from './people.js'

/** Names of teams go into mails to people who do not know the team yet: no dots or slashes, so that none of them is a link. */
const teamNameSchema = text(128, 1)
  .trim()
  .regex(/^[\p{L}\p{M}\p{N} _\-@']+$/u, "may have letters, digits, spaces and _ - @ '")
  .describe('For people; need not be unique.')

/** Also a path segment; no other text reaches the database. */
export const teamIdSchema = z
  .string()
  .regex(/^team-[0-9a-z]{25}$/, 'must be the id of a team: team- and 25 characters 0-9a-z')
/** As {@link teamIdSchema}, of an invitation. */
export const invitationIdSchema = z
  .string()
  .regex(/^inv-[0-9a-z]{25}$/, 'must be the id of an invitation: inv- and 25 characters 0-9a-z')

/** What somebody can be made; an owner is made by handing the team over. */
const givenRoleSchema = z
  .enum(['admin', 'member', 'viewer'])
  .describe('`viewer`: sees. `member`: also makes and uses capsules. `admin`: also manages people and keys.')

/** The same fields, each of which may be left out. */
function optional<Fields extends Record<string, z.ZodType>>(fields: Fields) {
  return z.object(fields).partial().shape
}

const plainTeamSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    slug: z.string().describe('Unique; for URLs.'),
    is_byoc: z.boolean().describe('Always false.'),
    audit_data_access: z.boolean().describe('Whether commands and file operations are in its audit trail.'),
    created_at: timestampSchema,
  })
  .meta({ id: 'PlainTeam' })

const MAX_COUNT = 1_000_000
/** Of a column that is a 32-bit integer. */
const MAX_MIB = 2 ** 31 - 1
const ownLimit = (max: number) =>
  z.number().int().min(0).max(max).nullable().describe('null: what the plan, or else the platform gives; 0: no limit.')
const limitFields = {
  running_capsules: ownLimit(MAX_COUNT),
  vcpus: ownLimit(MAX_COUNT).describe('Of running capsules.'),
  memory_mb: ownLimit(MAX_MIB).describe('Of running capsules.'),
  pool_bytes: ownLimit(Number.MAX_SAFE_INTEGER).describe('Files of capsules, checkpoints and snapshots.'),
  creating_capsules: ownLimit(MAX_COUNT).describe('Capsules that are being created at a time.'),
  api_calls_per_min: ownLimit(MAX_COUNT).describe(
    'Calls of all keys and people of a team, in one minute of the clock.',
  ),
}

/** Limits of one team, or of a plan. */
export const teamQuotaSchema = z.object(limitFields).meta({ id: 'TeamQuota' })
/** On the wire. */
export type TeamQuotaLimits = z.infer<typeof teamQuotaSchema>

/** Also a path segment; `none` is what the command line says for no plan. */
export const planNameSchema = z
  .string()
  .refine((name) => name !== 'none', 'must not be "none"')
  .regex(/^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$/, 'must be a name of a-z, 0-9 and - inside, 64 characters at most')

/** Body of `PATCH /v1/admin/teams/{id}/quota`. */
export const updateTeamQuotaSchema = requestBody({
  ...optional(limitFields),
  plan: planNameSchema.nullable().optional().describe('null: none.'),
}).meta({ id: 'UpdateTeamQuota' })
/** As the server reads it. */
export type UpdateTeamQuotaInput = z.output<typeof updateTeamQuotaSchema>

/** Body of `PUT /v1/admin/plans/{name}`: what is left out is null. */
export const putPlanSchema = requestBody(optional(limitFields)).meta({ id: 'PutPlan' })
/** As the server reads it. */
export type PutPlanInput = z.output<typeof putPlanSchema>

/** Limits with a name, for any number of teams. */
export const planSchema = z
  .object({
    name: z.string(),
    quota: teamQuotaSchema.describe('null: what the platform gives every team.'),
    teams: z.number().int().describe('How many have it.'),
    created_at: timestampSchema,
  })
  .meta({ id: 'Plan' })
/** On the wire. */
export type Plan = z.infer<typeof planSchema>

/** Query of `GET /v1/admin/teams`. */
export const listAllTeamsQuerySchema = z.object({
  after: teamIdSchema.optional().describe('The last one of the page before.'),
  limit: z.coerce.number().int().min(1).max(200).default(100),
})
/** As the server reads it. */
export type ListAllTeamsQuery = z.output<typeof listAllTeamsQuerySchema>

/** A team, as admins of the platform see it. */
export const anyTeamSchema = plainTeamSchema
  .extend({
    members: z.number().int(),
    plan: z.string().nullable(),
    quota: teamQuotaSchema.describe('Its own limits, which count before those of its plan.'),
  })
  .meta({ id: 'AnyTeam' })
/** On the wire. */
export type AnyTeam = z.infer<typeof anyTeamSchema>

/** A team, as somebody who is in it sees it. */
export const teamSchema = plainTeamSchema
  .extend({ role: z.string().describe('Of who asks: `owner`, `admin`, `member` or `viewer`.') })
  .meta({ id: 'Team' })
/** A team on the wire. */
export type Team = z.infer<typeof teamSchema>

/** One of the teams of who asks. */
export const listedTeamSchema = teamSchema
  .extend({ current: z.boolean().describe('The one that this session or key works in.') })
  .meta({ id: 'ListedTeam' })
/** On the wire. */
export type ListedTeam = z.infer<typeof listedTeamSchema>

/** Somebody in a team. */
export const memberSchema = z
  .object({
    user_id: z.string(),
    name: z.string(),
    email: z.string(),
    role: z.string(),
    joined_at: timestampSchema,
  })
  .meta({ id: 'Member' })
/** On the wire. */
export type MemberOfTeam = z.infer<typeof memberSchema>

/** Answer of `GET /v1/teams/{id}`. */
export const teamDetailsSchema = z
  .object({ team: plainTeamSchema, members: z.array(memberSchema) })
  .meta({ id: 'TeamDetails' })
/** On the wire. */
export type TeamDetails = z.infer<typeof teamDetailsSchema>

/** Body of `POST /v1/teams`. */
export const createTeamSchema = requestBody({ name: teamNameSchema }).meta({ id: 'CreateTeam' })
/** Body of `PATCH /v1/teams/{id}`: what is left out stays. */
export const updateTeamSchema = requestBody({
  name: teamNameSchema.optional(),
  audit_data_access: z
    .boolean()
    .optional()
    .describe('Whether commands and file operations inside capsules are in the audit trail.'),
}).meta({ id: 'UpdateTeam' })
/** As the server reads it. */
export type UpdateTeamInput = z.output<typeof updateTeamSchema>
/** Body of `PATCH /v1/teams/{id}/members/{user_id}`. */
export const changeRoleSchema = requestBody({ role: givenRoleSchema }).meta({ id: 'ChangeRole' })
/** Body of `POST /v1/teams/{id}/transfer`. */
export const transferTeamSchema = requestBody({
  user_id: userIdSchema.describe('Who is in the team and is to own it.'),
}).meta({ id: 'TransferTeam' })

/** Body of `POST /v1/teams/{id}/invitations`, and of `POST /v1/teams/{id}/members`, which is another name for it. */
export const inviteSchema = requestBody({
  email: emailSchema,
  role: givenRoleSchema.default('member'),
}).meta({ id: 'Invite' })
/** As the server reads it. */
export type InviteInput = z.output<typeof inviteSchema>

/** An invitation that nobody has accepted yet. What its link carries is in the mail alone. */
export const invitationSchema = z
  .object({
    id: z.string(),
    email: z.string(),
    role: z.string(),
    invited_by: z.string().describe('Id of a person or a key.'),
    inviter_name: z.string(),
    created_at: timestampSchema,
    sent_at: timestampSchema,
    times_sent: z.number(),
    expires_at: timestampSchema,
  })
  .meta({ id: 'Invitation' })
/** On the wire. */
export type Invitation = z.infer<typeof invitationSchema>

/** Body of `POST /v1/invitations/accept`. */
export const acceptInvitationSchema = requestBody({
  token: text(256, 1).describe('Of the link in the mail.'),
}).meta({ id: 'AcceptInvitation' })

/** Query of `GET /v1/users/search`. */
export const searchUsersQuerySchema = z.object({
  email: text(254, 3).regex(/@/, 'must have an @').describe('The beginning of an address.'),
})
/** Answer: people of the same teams, ten at most. */
export const foundUserSchema = z.object({ user_id: z.string(), email: z.string() }).meta({ id: 'FoundUser' })
