import { type Kysely, sql } from 'kysely'

/** Who signs the certificates by which hosts and control planes know each other, and what was signed. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE host_authorities (
    serial text PRIMARY KEY,
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    certificate text NOT NULL,
    key text,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    CHECK ((key IS NULL) = (retired_at IS NOT NULL))
  )`.execute(db)
  await sql`CREATE TABLE host_certificates (
    serial text PRIMARY KEY,
    authority_serial text NOT NULL REFERENCES host_authorities (serial),
    host_id text NOT NULL,
    key_hash text NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
  )`.execute(db)
  await sql`CREATE INDEX host_certificates_of_host ON host_certificates (host_id)`.execute(db)
  await sql`CREATE INDEX host_certificates_of_authority ON host_certificates (authority_serial, expires_at)`.execute(db)
}

/** Forgets all of it: hosts that have joined are trusted by nobody, and join again. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`DROP TABLE host_certificates`.execute(db)
  await sql`DROP TABLE host_authorities`.execute(db)
}
