import { z } from 'zod'
import { requestBody, text, timestampSchema } from './common.js'

/** Before every access token of a session; keys never begin like it. */
export const ACCESS_TOKEN_PREFIX = 'wra_'
/** Before every refresh token. */
export const REFRESH_TOKEN_PREFIX = 'wrr_'

/** A page that sends cookies sets it; pages from elsewhere cannot. */
export const CSRF_HEADER = 'x-wrenn-csrf'

/** One address, in lower case; whether mail comes there says only a mail. */
export const emailSchema = text(254, 3)
  .trim()
  .toLowerCase()
  .regex(/^[^\s@<>,;"]{1,64}@[^\s@<>,;"]+$/, 'must be a mail address')

const personNameSchema = text(100).trim().min(1).describe('For people.')
const passwordSchema = text(1024, 8).describe('8 to 1024 characters.')
/** One that is checked, not chosen. */
const givenPasswordSchema = text(1024)
const mailTokenSchema = text(256, 1).describe('Of the link in the mail.')
const cookies = z
  .boolean()
  .default(false)
  .describe('For pages of this platform: tokens come as cookies that scripts cannot read, and not in the answer.')

/** Also a path segment; no other text reaches the database. */
export const userIdSchema = z
  .string()
  .regex(/^usr-[0-9a-z]{25}$/, 'must be the id of an account: usr- and 25 characters 0-9a-z')
/** As {@link userIdSchema}, of a session. */
export const sessionIdSchema = z
  .string()
  .regex(/^ses-[0-9a-z]{25}$/, 'must be the id of a session: ses- and 25 characters 0-9a-z')

/** Body of `POST /v1/auth/signup`. */
export const signUpSchema = requestBody({
  email: emailSchema,
  password: passwordSchema,
  name: personNameSchema,
}).meta({ id: 'SignUp' })
/** As the server reads it. */
export type SignUpInput = z.output<typeof signUpSchema>

/** Answer to a sign-up, whoever has the address. */
export const signedUpSchema = z.object({ message: z.string() }).meta({ id: 'SignedUp' })

/** Body of `POST /v1/auth/activate`. */
export const activateSchema = requestBody({
  token: mailTokenSchema,
  password: passwordSchema.optional().describe('Of an account that an admin made, which has none yet.'),
  cookies,
}).meta({ id: 'Activate' })

/** Body of `POST /v1/auth/login`. */
export const loginSchema = requestBody({ email: emailSchema, password: givenPasswordSchema, cookies }).meta({
  id: 'Login',
})

/** Body of `POST /v1/auth/refresh`. */
export const refreshSchema = requestBody({
  refresh_token: text(512, 1).optional().describe('Not of pages: theirs comes as a cookie.'),
}).meta({ id: 'Refresh' })

/** Body of `POST /v1/auth/switch-team`. */
export const switchTeamSchema = requestBody({ team_id: text(64, 1) }).meta({ id: 'SwitchTeam' })

/** Answer to whatever begins, goes on with or moves a session. */
export const authSchema = z
  .object({
    token: z.string().optional().describe('For the header `Authorization: Bearer`. Absent where cookies carry it.'),
    expires_at: timestampSchema.describe('Of the token; POST /v1/auth/refresh gives the next one.'),
    refresh_token: z.string().optional().describe('Good once: the answer to a refresh has the next one.'),
    session_id: sessionIdSchema,
    user_id: userIdSchema,
    team_id: z.string(),
    email: z.string(),
    name: z.string(),
  })
  .meta({ id: 'Auth' })
/** On the wire. */
export type Auth = z.infer<typeof authSchema>

/** One login of a person. */
export const sessionSchema = z
  .object({
    id: sessionIdSchema,
    team_id: z.string(),
    current: z.boolean().describe('The one that asks.'),
    ip: z.string().describe('Of its last login or refresh.'),
    user_agent: z.string(),
    created_at: timestampSchema,
    last_used: timestampSchema.describe('Its last login or refresh.'),
    expires_at: timestampSchema.describe('Unless it is refreshed before.'),
  })
  .meta({ id: 'Session' })
/** A session on the wire. */
export type Session = z.infer<typeof sessionSchema>

/** Answer of `GET /v1/me`. */
export const meSchema = z
  .object({
    id: userIdSchema,
    name: z.string(),
    email: z.string(),
    has_password: z.boolean(),
    providers: z.array(z.string()),
    is_admin: z.boolean().describe('Of the platform.'),
    team_id: z.string().describe('The team that this session works in.'),
    role: z.string().describe('In that team.'),
  })
  .meta({ id: 'Me' })
/** On the wire. */
export type Me = z.infer<typeof meSchema>

/** Body of `PATCH /v1/me`. */
export const updateMeSchema = requestBody({ name: personNameSchema }).meta({ id: 'UpdateMe' })

/** Body of `POST /v1/me/password`. */
export const changePasswordSchema = requestBody({
  current_password: givenPasswordSchema,
  new_password: passwordSchema,
  confirm_password: givenPasswordSchema.optional().describe('The new one again; checked when it is given.'),
}).meta({ id: 'ChangePassword' })
/** As the server reads it. */
export type ChangePasswordInput = z.output<typeof changePasswordSchema>

/** Body of `POST /v1/me/password/reset`. */
export const requestResetSchema = requestBody({ email: emailSchema }).meta({ id: 'RequestReset' })

/** Body of `POST /v1/me/password/reset/confirm`. */
export const confirmResetSchema = requestBody({ token: mailTokenSchema, new_password: passwordSchema }).meta({
  id: 'ConfirmReset',
})

/** Somebody's account, as admins of the platform see it. */
export const personSchema = z
  .object({
    id: userIdSchema,
    email: z.string(),
    name: z.string(),
    status: z.string().describe('`pending` until it is activated, `active`, `disabled`.'),
    is_admin: z.boolean(),
    created_at: timestampSchema,
  })
  .meta({ id: 'User' })
/** An account on the wire. */
export type User = z.infer<typeof personSchema>

/** Query of `GET /v1/admin/users`. */
export const listUsersQuerySchema = z.object({
  after: userIdSchema.optional().describe('The last one of the page before.'),
  limit: z.coerce.number().int().min(1).max(200).default(100),
})
/** As the server reads it. */
export type ListUsersQuery = z.output<typeof listUsersQuerySchema>

/** Body of `POST /v1/admin/users`. */
export const createUserSchema = requestBody({
  email: emailSchema,
  name: personNameSchema,
  is_admin: z.boolean().default(false),
}).meta({ id: 'CreateUser' })
/** As the server reads it. */
export type CreateUserInput = z.output<typeof createUserSchema>

/** Answer to the making of an account, the only one that has the token. */
export const newUserSchema = personSchema
  .extend({
    activation_token: z.string().describe('For POST /v1/auth/activate, once. Who has it chooses the password.'),
    activation_expires_at: timestampSchema,
  })
  .meta({ id: 'NewUser' })
/** On the wire. */
export type NewUser = z.infer<typeof newUserSchema>

/** Body of `PATCH /v1/admin/users/{id}`. */
export const updateUserSchema = requestBody({
  status: z.enum(['active', 'disabled']).optional(),
  is_admin: z.boolean().optional(),
}).meta({ id: 'UpdateUser' })
/** As the server reads it. */
export type UpdateUserInput = z.output<typeof updateUserSchema>
