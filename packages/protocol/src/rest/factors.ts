import { z } from 'zod'
import { requestBody, text, timestampSchema } from './common.js'
import { cookiesField, restoreField } from './login-fields.js'

const base64url = (maxLength: number) =>
  text(maxLength, 1).regex(/^[A-Za-z0-9_-]+$/, 'must be base64url without padding')
const credentialId = base64url(1400)
const passkeyNameSchema = text(100).trim().min(1).describe('For people.')

/** What somebody can prove with who they are, beside a password. */
export const secondFactorMethods = ['passkey', 'totp', 'recovery_code'] as const
/** One of {@link secondFactorMethods}. */
export type SecondFactorMethod = (typeof secondFactorMethods)[number]

/** Answer to a login that is half done: there is no session yet. */
export const secondFactorNeededSchema = z
  .object({
    second_factor: z.object({
      token: z.string().describe('For POST /v1/auth/second-factor, once, from the same place.'),
      methods: z
        .array(z.string())
        .describe('`passkey`, `totp`, `recovery_code`: any of these will do, the best one first.'),
      expires_at: timestampSchema,
    }),
  })
  .meta({ id: 'SecondFactorNeeded' })
/** On the wire. */
export interface SecondFactorNeeded {
  readonly second_factor: {
    readonly token: string
    readonly methods: string[]
    readonly expires_at: string
  }
}

/** What a browser gives for a passkey that was made (`RegistrationResponseJSON` of WebAuthn Level 3); fields beyond these do not count. */
export const passkeyAttestationSchema = z
  .looseObject({
    id: credentialId,
    rawId: credentialId,
    type: z.literal('public-key'),
    response: z.looseObject({
      clientDataJSON: base64url(8192),
      attestationObject: base64url(65_536),
      transports: z.array(text(32)).max(10).optional(),
    }),
    clientExtensionResults: z.looseObject({}),
  })
  .meta({ id: 'PasskeyAttestation' })
/** On the wire. */
export type PasskeyAttestation = z.infer<typeof passkeyAttestationSchema>

/** What a browser gives for a passkey that has signed (`AuthenticationResponseJSON`); fields beyond these do not count. */
export const passkeyAssertionSchema = z
  .looseObject({
    id: credentialId,
    rawId: credentialId,
    type: z.literal('public-key'),
    response: z.looseObject({
      clientDataJSON: base64url(8192),
      authenticatorData: base64url(8192),
      signature: base64url(8192),
      userHandle: base64url(128).nullish(),
    }),
    clientExtensionResults: z.looseObject({}),
  })
  .meta({ id: 'PasskeyAssertion' })
/** On the wire. */
export type PasskeyAssertion = z.infer<typeof passkeyAssertionSchema>

/** What `navigator.credentials` is asked with, in the form of JSON (`PublicKeyCredentialCreationOptionsJSON`, `…RequestOptionsJSON`). */
export const passkeyOptionsSchema = z
  .looseObject({ challenge: z.string() })
  .describe(
    'For `PublicKeyCredential.parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON`; good for 5 minutes, once.',
  )
  .meta({ id: 'PasskeyOptions' })
/** On the wire. */
export type PasskeyOptions = z.infer<typeof passkeyOptionsSchema>

const secondFactorTokenSchema = text(256, 1).describe('Of the answer to the login.')

/** Body of `POST /v1/auth/second-factor/passkey`. */
export const secondFactorPasskeySchema = requestBody({ token: secondFactorTokenSchema }).meta({
  id: 'SecondFactorPasskey',
})

/** A code as an app shows it; people may type spaces. */
const totpCodeSchema = text(16, 1)
  .transform((typed) => typed.replace(/\s/g, ''))
  .pipe(z.string().regex(/^\d{6}$/, 'must be 6 digits'))

/** Body of `POST /v1/auth/second-factor`. */
export const secondFactorSchema = requestBody({
  token: secondFactorTokenSchema,
  code: totpCodeSchema.optional().describe('Of the authenticator app, good once.'),
  recovery_code: text(64, 1).optional().describe('Good once.'),
  passkey: passkeyAssertionSchema.optional(),
  cookies: cookiesField,
})
  .refine(
    ({ code, recovery_code, passkey }) =>
      [code, recovery_code, passkey].filter((given) => given !== undefined).length === 1,
    'must have one of code, recovery_code and passkey',
  )
  .meta({ id: 'SecondFactor' })

/** Body of `POST /v1/auth/passkey`. */
export const passkeyLoginSchema = requestBody({
  passkey: passkeyAssertionSchema,
  restore: restoreField,
  cookies: cookiesField,
}).meta({ id: 'PasskeyLogin' })

/** Also a path segment; no other text reaches the database. */
export const passkeyIdSchema = z
  .string()
  .regex(/^pk-[0-9a-z]{25}$/, 'must be the id of a passkey: pk- and 25 characters 0-9a-z')

/** A passkey of yours. */
export const passkeySchema = z
  .object({
    id: z.string(),
    name: z.string(),
    synced: z.boolean().describe('Its owner has it on other devices too, as far as it says.'),
    created_at: timestampSchema,
    last_used: timestampSchema.optional(),
  })
  .meta({ id: 'Passkey' })
/** On the wire. */
export type Passkey = z.infer<typeof passkeySchema>

/** Answer of `GET /v1/me/factors`. */
export const factorsSchema = z
  .object({
    totp_since: timestampSchema.optional().describe('Absent without an authenticator app.'),
    passkeys: z.array(passkeySchema),
    recovery_codes_left: z.number(),
  })
  .meta({ id: 'Factors' })
/** On the wire. */
export type Factors = z.infer<typeof factorsSchema>

/** Answer to the beginning of an enrolment. */
export const totpEnrolmentSchema = z
  .object({
    secret: z.string().describe('Base32, for who types it.'),
    uri: z.string().describe('`otpauth://totp/…`, for a QR code.'),
  })
  .meta({ id: 'TotpEnrolment' })
/** On the wire. */
export type TotpEnrolment = z.infer<typeof totpEnrolmentSchema>

/** Body of `POST /v1/me/factors/totp/confirm`. */
export const confirmTotpSchema = requestBody({ code: totpCodeSchema }).meta({ id: 'ConfirmTotp' })

const recoveryCodes = z
  .array(z.string())
  .optional()
  .describe(
    'Ten, each good once, shown only now. Present when they are new: with the first factor, or when they were asked for.',
  )

/** Answer to what makes recovery codes. */
export const recoveryCodesSchema = z.object({ recovery_codes: recoveryCodes }).meta({ id: 'RecoveryCodes' })
/** On the wire. */
export type RecoveryCodes = z.infer<typeof recoveryCodesSchema>

/** Body of `POST /v1/me/factors/passkeys`. */
export const addPasskeySchema = requestBody({ name: passkeyNameSchema, credential: passkeyAttestationSchema }).meta({
  id: 'AddPasskey',
})

/** Answer to that. */
export const newPasskeySchema = passkeySchema.extend({ recovery_codes: recoveryCodes }).meta({ id: 'NewPasskey' })
/** On the wire. */
export type NewPasskeyInfo = z.infer<typeof newPasskeySchema>

/** Body of `PATCH /v1/me/factors/passkeys/{id}`. */
export const renamePasskeySchema = requestBody({ name: passkeyNameSchema }).meta({ id: 'RenamePasskey' })
