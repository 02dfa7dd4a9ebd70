import { z } from 'zod'
import { isMailAddress } from '../mail-address.js'
import { requestBody, text, timestampSchema } from './common.js'
import { passkeyAssertionSchema } from './factors.js'
import { cookiesField, restoreField } from './login-fields.js'

/** Of an account that may be there, in lower case. */
const givenEmailSchema = text(254, 3)
  .trim()
  .toLowerCase()
  .regex(/^[^\s@<>,;"]{1,64}@[^\s@<>,;"]+$/, 'must be a mail address')

/** One address that mail can be sent to, in lower case; whether it comes there says only a mail. */
export const emailSchema = givenEmailSchema.refine(isMailAddress, 'must be one address, such as name@example.org')

const personNameSchema = text(100).trim().min(1).describe('For people.')
const passwordSchema = text(1024, 8).describe('8 to 1024 characters.')
/** One that is checked, not chosen. */
const givenPasswordSchema = text(1024)
const mailTokenSchema = text(256, 1).describe('Of the link in the mail.')

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

/** Body of `POST /v1/auth/setup`. */
export const setUpSchema = requestBody({
  code: text(256, 1).describe('Of the link that `wrenn up` prints while nobody has an account.'),
  email: emailSchema,
  name: personNameSchema,
  password: passwordSchema,
  cookies: cookiesField,
}).meta({ id: 'SetUp' })
/** As the server reads it. */
export type SetUpInput = Omit<z.output<typeof setUpSchema>, 'cookies'>

/** Answer to a sign-up, whoever has the address. */
export const signedUpSchema = z.object({ message: z.string() }).meta({ id: 'SignedUp' })

/** Body of `POST /v1/auth/activate`. */
export const activateSchema = requestBody({
  token: mailTokenSchema,
  password: passwordSchema.optional().describe('Of an account that an admin made, which has none yet.'),
  cookies: cookiesField,
}).meta({ id: 'Activate' })

/** Body of `POST /v1/auth/login`. */
export const loginSchema = requestBody({
  email: givenEmailSchema,
  password: givenPasswordSchema,
  restore: restoreField,
  cookies: cookiesField,
}).meta({ id: 'Login' })

/** Body of `POST /v1/auth/confirm`. */
export const confirmSchema = requestBody({
  password: givenPasswordSchema.optional(),
  passkey: passkeyAssertionSchema.optional().describe('That has signed what POST /v1/auth/confirm/passkey gave.'),
})
  .refine(
    ({ password, passkey }) => (password === undefined) !== (passkey === undefined),
    'must have either password or passkey',
  )
  .meta({ id: 'Confirm' })

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

/** Body of `POST /v1/auth/device`. */
export const beginDeviceLoginSchema = requestBody({
  client: text(100, 1)
    .trim()
    .min(1)
    .describe('What the program says of itself; people see it, and nobody believes it.'),
}).meta({ id: 'BeginDeviceLogin' })
/** As the server reads it. */
export type BeginDeviceLoginInput = z.output<typeof beginDeviceLoginSchema>

/** Answer to `POST /v1/auth/device`. */
export const deviceLoginSchema = z
  .object({
    device_code: z
      .string()
      .describe("The program's own, for POST /v1/auth/device/token; whoever has it gets the session."),
    user_code: z.string().describe('What its person types.'),
    verification_uri: z.string().describe('Where they type it.'),
    verification_uri_complete: z.string().describe('The same, with the code.'),
    expires_at: timestampSchema,
    interval_sec: z.number().describe('Between two questions of the program.'),
  })
  .meta({ id: 'DeviceLogin' })
/** On the wire. */
export type DeviceLogin = z.infer<typeof deviceLoginSchema>

/** Body of `POST /v1/auth/device/token`. */
export const deviceTokenSchema = requestBody({ device_code: text(256, 1) }).meta({ id: 'DeviceToken' })

/** Answer to a program while nobody has decided. */
export const devicePendingSchema = z.object({ status: z.literal('pending') }).meta({ id: 'DevicePending' })

/** A code that people type, as they type it: small or large letters, with or without the dash. */
export const userCodeSchema = text(32, 1)
  .transform((typed) => typed.toUpperCase().replace(/[\s-]/g, ''))
  .describe('As the program shows it.')

/** Body of `POST /v1/auth/device/{code}`. */
export const decideDeviceSchema = requestBody({
  approve: z.boolean().describe('`false` sends the program away.'),
}).meta({ id: 'DecideDevice' })

/** A program that waits for you. */
export const waitingDeviceSchema = z
  .object({
    client: z.string().describe('What it says of itself.'),
    ip: z.string().describe('Where it asks from.'),
    created_at: timestampSchema,
    expires_at: timestampSchema,
  })
  .meta({ id: 'WaitingDevice' })
/** On the wire. */
export type WaitingDevice = z.infer<typeof waitingDeviceSchema>

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
    providers: z.array(z.string()).describe('Ids of those that this account is connected with.'),
    is_admin: z.boolean().describe('Of the platform.'),
    team_id: z.string().describe('The team that this session works in.'),
    role: z.string().describe('In that team.'),
    permissions: z.array(z.string()).describe('What this session may do now; all else is refused with 403.'),
    features: z
      .array(z.string())
      .describe(
        'What this platform can do that not every one can: `hibernation`, where it has an object store and a key.',
      ),
  })
  .meta({ id: 'Me' })
/** On the wire. */
export type Me = z.infer<typeof meSchema>

/** Body of `PATCH /v1/me`. */
export const updateMeSchema = requestBody({ name: personNameSchema }).meta({ id: 'UpdateMe' })

/** Body of `DELETE /v1/me`. */
export const deleteMeSchema = requestBody({
  confirmation: text(254).describe('The address of the account.'),
}).meta({ id: 'DeleteMe' })

/** Answer to that. */
export const deletionSchema = z
  .object({ erase_at: timestampSchema.describe('Until then it can be taken back.') })
  .meta({ id: 'Deletion' })
/** On the wire. */
export type Deletion = z.infer<typeof deletionSchema>

/** Body of `POST /v1/me/password`. */
export const changePasswordSchema = requestBody({
  current_password: givenPasswordSchema.optional().describe('Of an account that has one.'),
  new_password: passwordSchema,
  confirm_password: givenPasswordSchema
    .optional()
    .describe('The new one again; checked when it is given, and needed by an account that has no password yet.'),
}).meta({ id: 'ChangePassword' })
/** As the server reads it. */
export type ChangePasswordInput = z.output<typeof changePasswordSchema>

/** Body of `POST /v1/me/password/reset`. */
export const requestResetSchema = requestBody({ email: givenEmailSchema }).meta({ id: 'RequestReset' })

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
    status: z.string().describe('`pending` until it is activated, `active`, `disabled`, `deleted` by its owner.'),
    is_admin: z.boolean(),
    created_at: timestampSchema,
    erase_at: timestampSchema.optional().describe('Of a deleted one: until then it can be restored.'),
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
