import { type Kysely, sql } from 'kysely'

/**
 * What people prove who they are with beside a password: an authenticator app, passkeys, recovery codes; logins that wait for that; and what
 * passkeys are asked to sign.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE totp_factors (
    user_id text PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    secret text NOT NULL,
    last_step bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz
  )`.execute(db)
  await sql`CREATE TABLE recovery_codes (
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    digest text NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (user_id, digest)
  )`.execute(db)
  await sql`CREATE TABLE passkeys (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name text NOT NULL,
    credential_id text NOT NULL UNIQUE,
    public_key text NOT NULL,
    counter bigint NOT NULL,
    transports text[] NOT NULL,
    backed_up boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz
  )`.execute(db)
  await sql`CREATE INDEX passkeys_user ON passkeys (user_id, created_at)`.execute(db)
  await sql`CREATE TABLE login_steps (
    digest text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    place text NOT NULL,
    restore boolean NOT NULL,
    provider text,
    failures integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
  )`.execute(db)
  await sql`CREATE INDEX login_steps_user ON login_steps (user_id)`.execute(db)
  await sql`CREATE INDEX login_steps_expiry ON login_steps (expires_at)`.execute(db)
  await sql`CREATE TABLE passkey_challenges (
    digest text PRIMARY KEY,
    purpose text NOT NULL,
    bound_to text NOT NULL,
    expires_at timestamptz NOT NULL
  )`.execute(db)
  await sql`CREATE INDEX passkey_challenges_expiry ON passkey_challenges (expires_at)`.execute(db)
}

/** Accounts are protected by their passwords alone again. */
export async function down(db: Kysely<unknown>): Promise<void> {
  for (const table of ['passkey_challenges', 'login_steps', 'passkeys', 'recovery_codes', 'totp_factors']) {
    await sql`DROP TABLE ${sql.table(table)}`.execute(db)
  }
}
