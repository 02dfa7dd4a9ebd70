import { type Kysely, sql } from 'kysely'

/**
 * People: accounts, memberships, sessions and what mails carry. Every control plane hears at once when one of them may do less than
 * before. The oldest key that may do everything becomes the platform's own: it may also manage accounts.
 */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`CREATE TABLE users (
    id text PRIMARY KEY,
    email text NOT NULL,
    name text NOT NULL,
    password_hash text,
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'active', 'disabled')),
    is_admin boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
  )`.execute(db)
  await sql`CREATE UNIQUE INDEX users_email ON users (lower(email))`.execute(db)
  await sql`CREATE TABLE team_members (
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (team_id, user_id)
  )`.execute(db)
  await sql`CREATE INDEX team_members_user ON team_members (user_id, joined_at)`.execute(db)
  await sql`CREATE TABLE sessions (
    id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    team_id text NOT NULL REFERENCES teams (id) ON DELETE CASCADE,
    refresh_hash text NOT NULL,
    rotated_from text,
    rotation_key text NOT NULL,
    rotations integer NOT NULL DEFAULT 0,
    rotated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL DEFAULT now(),
    ip text NOT NULL,
    user_agent text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
  )`.execute(db)
  await sql`CREATE INDEX sessions_user ON sessions (user_id)`.execute(db)
  await sql`CREATE INDEX sessions_expiry ON sessions (expires_at)`.execute(db)
  await sql`CREATE TABLE access_tokens (
    digest text PRIMARY KEY,
    session_id text NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    expires_at timestamptz NOT NULL
  )`.execute(db)
  await sql`CREATE INDEX access_tokens_session ON access_tokens (session_id)`.execute(db)
  await sql`CREATE INDEX access_tokens_expiry ON access_tokens (expires_at)`.execute(db)
  await sql`CREATE TABLE email_tokens (
    digest text PRIMARY KEY,
    kind text NOT NULL,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name text,
    password_hash text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz
  )`.execute(db)
  await sql`CREATE INDEX email_tokens_user ON email_tokens (user_id, kind)`.execute(db)
  // Nothing is lost with it but who has tried how often.
  await sql`CREATE UNLOGGED TABLE attempts (
    bucket text PRIMARY KEY,
    count integer NOT NULL,
    since timestamptz NOT NULL,
    until timestamptz NOT NULL
  )`.execute(db)
  await sql`CREATE INDEX attempts_until ON attempts (until)`.execute(db)
  await sql`CREATE FUNCTION person_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('person_changed', '');
      RETURN NULL;
    END $$`.execute(db)
  await sql`CREATE TRIGGER person_changed AFTER UPDATE OF email, name, status, is_admin, deleted_at OR DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION person_changed()`.execute(db)
  await sql`CREATE TRIGGER person_changed AFTER UPDATE OF role OR DELETE ON team_members
    FOR EACH ROW EXECUTE FUNCTION person_changed()`.execute(db)
  // Not for rotations and uses, which come all the time.
  await sql`CREATE TRIGGER person_changed AFTER UPDATE OF team_id, revoked_at OR DELETE ON sessions
    FOR EACH ROW EXECUTE FUNCTION person_changed()`.execute(db)
  await sql`ALTER TABLE audit_log DROP CONSTRAINT audit_log_actor_type_check`.execute(db)
  await sql`ALTER TABLE audit_log ADD CHECK (actor_type IN ('key', 'user', 'system'))`.execute(db)
  await sql`UPDATE api_keys SET scopes = scopes || '{platform}' WHERE id = (
    SELECT id FROM api_keys WHERE revoked_at IS NULL AND expires_at IS NULL AND scopes @> '{read,capsules,templates,admin}'
    ORDER BY created_at, id LIMIT 1)`.execute(db)
}

/** Forgets everybody, and the entries of the audit trail stay as they are: the check for who acted does not come back. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await sql`UPDATE api_keys SET scopes = array_remove(scopes, 'platform')`.execute(db)
  await sql`DROP TABLE attempts`.execute(db)
  await sql`DROP TABLE email_tokens`.execute(db)
  await sql`DROP TABLE access_tokens`.execute(db)
  await sql`DROP TABLE sessions`.execute(db)
  await sql`DROP TABLE team_members`.execute(db)
  await sql`DROP TABLE users`.execute(db)
  await sql`DROP FUNCTION person_changed()`.execute(db)
}
