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

const plainTeamSchema = z
  .object({
    id: z.string(),
    name: z.string(),
    slug: z.string().describe('Unique; for URLs.'),
    is_byoc: z.boolean().describe('Always false.'),
    created_at: timestampSchema,
  })
  .meta({ id: 'PlainTeam' })

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
/** Body of `PATCH /v1/teams/{id}`. */
export const renameTeamSchema = requestBody({ name: teamNameSchema }).meta({ id: 'RenameTeam' })
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
