import { type Kysely, sql } from 'kysely'

/** Who people are to providers, and sign-ins on their way there and back. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE oauth_identities (
    provider text NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, issuer, subject),
    UNIQUE (user_id, provider)
  )`.execute(db)
  await sql`CREATE TABLE oauth_flows (
    digest text PRIMARY KEY,
    browser text NOT NULL,
    provider text NOT NULL,
    intent text NOT NULL CHECK (intent IN ('login', 'signup', 'link')),
    next text,
    session_id text REFERENCES sessions (id) ON DELETE CASCADE CHECK ((intent = 'link') = (session_id IS NOT NULL)),
    expires_at timestamptz NOT NULL
  )`.execute(db)
  await sql`CREATE INDEX oauth_flows_expiry ON oauth_flows (expires_at)`.execute(db)
  await sql`CREATE INDEX oauth_flows_session ON oauth_flows (session_id)`.execute(db)
  await sql`CREATE TABLE oauth_codes (
    digest text PRIMARY KEY,
    browser text NOT NULL,
    provider text NOT NULL,
    issuer text NOT NULL,
    subject text NOT NULL,
    expires_at timestamptz NOT NULL,
    FOREIGN KEY (provider, issuer, subject) REFERENCES oauth_identities ON DELETE CASCADE
  )`.execute(db)
  await sql`CREATE INDEX oauth_codes_expiry ON oauth_codes (expires_at)`.execute(db)
  await sql`CREATE INDEX oauth_codes_identity ON oauth_codes (provider, issuer, subject)`.execute(db)
}

/** Who has no password chooses one by mail. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE oauth_codes`.execute(db)
  await sql`DROP TABLE oauth_flows`.execute(db)
  await sql`DROP TABLE oauth_identities`.execute(db)
}
