import { Secret, TOTP } from 'otpauth'

const ISSUER = 'Wrenn'
const PERIOD_SEC = 30
/** RFC 4226 §4 R6: 160 bits. */
const SECRET_BYTES = 20
/** Clocks differ, and people type: RFC 6238 §5.2 allows one step of that. */
const WINDOW = 1

/** 160 random bits in base32, as authenticator apps take them. */
export function newTotpSecret(): string {
  return new Secret({ size: SECRET_BYTES }).base32
}

/** What a QR code carries. */
export function totpUri(secret: string, email: string): string {
  return totp(secret, email).toString()
}

/** The step that a code is of, at the time `now`; `undefined`: of none that counts. */
export function stepOf(secret: string, code: string, now: number): number | undefined {
  const delta = totp(secret).validate({ token: code, timestamp: now, window: WINDOW })
  return delta === null ? undefined : Math.floor(now / 1000 / PERIOD_SEC) + delta
}

/** The parameters that every app knows, also those that ignore what the URI says. */
function totp(secret: string, label = ''): TOTP {
  return new TOTP({
    issuer: ISSUER,
    label,
    algorithm: 'SHA1',
    digits: 6,
    period: PERIOD_SEC,
    secret: Secret.fromBase32(secret),
  })
}
