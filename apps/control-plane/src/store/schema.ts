import type {
  AwakeReason,
  auditOutcomes,
  auditResources,
  BuildLogLevel,
  BuildState,
  BuildStepType,
  CapsuleExit,
  CapsuleState,
  ChannelProvider,
  EgressPolicy,
  ErrorBody,
  PauseReason,
} from '@wrenn/protocol'
import type { ColumnType, Generated, JSONColumnType, RawBuilder, Selectable } from 'kysely'

type Time = ColumnType<Date, Date | undefined, Date>
type OptionalTime = ColumnType<Date | null, Date | null | undefined, Date | null>
type Json<T extends object | null> = JSONColumnType<T, string | null | undefined, string | null>
/** bigint columns come back as text; generations stay far below 2^53 and are parsed as numbers. */
type Count = ColumnType<number, number | undefined, number>

/** Who owns capsules. Keys belong to a team. */
export interface TeamsTable {
  id: string
  name: string
  /** Unique; for URLs. */
  slug: Generated<string>
  /** Limits of its own: `null` is its plan's, 0 no limit. */
  max_running: number | null
  max_vcpus: number | null
  max_memory_mib: number | null
  max_pool_bytes: number | null
  max_creating: number | null
  max_calls_per_min: number | null
  /** Name of a plan; `null` has none. */
  plan: string | null
  /** Whether commands and file operations are in its audit trail. */
  audit_data_access: Generated<boolean>
  created_at: Time
  /** Nobody is in a deleted team, and none of its keys is good. */
  deleted_at: ColumnType<Date | null, null | undefined, RawBuilder<Date>>
  /** When nothing of a deleted team was left. */
  swept_at: ColumnType<Date | null, null | undefined, RawBuilder<Date>>
}

/** Limits for any number of teams: `null` is the platform's default, 0 no limit. */
export interface PlansTable {
  name: string
  max_running: number | null
  max_vcpus: number | null
  max_memory_mib: number | null
  max_pool_bytes: number | null
  max_creating: number | null
  max_calls_per_min: number | null
  created_at: Time
}

/** How often each team has called, in the newest minute in which it did. */
interface TeamCallsTable {
  team_id: string
  /** Since 1970. */
  minute: number
  calls: number
}

/** Keys by digest: a key itself is in no table. Plain SHA-256 does, because a key has 128 random bits. */
export interface ApiKeysTable {
  id: string
  team_id: string
  name: string
  /** First characters, for people. */
  prefix: string
  /** SHA-256 of the whole key, hexadecimal. */
  key_hash: string
  /** A newer version may have written some that this one does not know. */
  scopes: ColumnType<string[], readonly string[], readonly string[]>
  /** Id of the key that made it. */
  created_by: string | null
  expires_at: OptionalTime
  /** Revoked keys stay, so that nothing can bring them back. */
  revoked_at: ColumnType<Date | null, null | undefined, Date | RawBuilder<Date>>
  created_at: Time
  last_used_at: OptionalTime
}

/** Hosts that have answered once. */
export interface HostsTable {
  id: string
  address: string
  agent_version: string
  engine: string
  first_seen_at: Time
  last_seen_at: ColumnType<Date, Date | RawBuilder<Date> | undefined, Date | RawBuilder<Date>>
  /** As it was last told of. */
  told_state: Generated<'up' | 'down'>
  memory_short: Generated<boolean>
  pool_short: Generated<boolean>
  /** What it said that it has. */
  cpus: number | null
  memory_mib: Count | null
  /** Of its pool, 0 to 1. */
  pool_free: number | null
  /** Since when it is gone for good: nothing of what was on it is anywhere. */
  removed_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** Who signs the certificates of hosts and control planes: the oldest that is in force those of control planes, the newest those of hosts. */
interface HostAuthoritiesTable {
  /** Of its own certificate. */
  serial: string
  /** Their order. */
  seq: Generated<number>
  certificate: string
  /** Encrypted; forgotten when it retires. */
  key: string | null
  created_at: ColumnType<Date, undefined, never>
  /** Since when nobody trusts it. */
  retired_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** What was issued to hosts, for as long as it would count. */
interface HostCertificatesTable {
  serial: string
  authority_serial: string
  host_id: string
  /** SHA-256 of its public key. */
  key_hash: string
  issued_at: ColumnType<Date, Date, never>
  expires_at: ColumnType<Date, Date, never>
  revoked_at: ColumnType<Date | null, undefined, Date>
}

/** Other machines that may run capsules, and by what they prove who they are. */
interface JoinedHostsTable {
  id: string
  /** `name:port`; until it has joined, `null`. */
  address: string | null
  arch: string | null
  cpu_cores: number | null
  memory_mib: Count | null
  disk_gib: Count | null
  /** What it joins by, as a digest. */
  token_digest: string | null
  token_expires_at: ColumnType<Date | null, Date | null | undefined, Date | null>
  /** Hash of the key that it was used for. */
  token_key_hash: string | null
  joined_at: ColumnType<Date | null, undefined, Date>
  /** Since when it gets no new capsules. */
  cordoned_at: ColumnType<Date | null, undefined, Date | null>
  /** What creates may ask for. */
  tags: ColumnType<readonly string[], undefined, readonly string[]>
  /** Trusted no more since then. */
  revoked_at: ColumnType<Date | null, undefined, Date | null>
  refresh_digest: string | null
  /** From which each refresh token follows from the one before. */
  rotation_key: string | null
  rotations: Generated<number>
  /** Of the key that the newest certificate was asked for. */
  refresh_key_hash: string | null
  refresh_expires_at: ColumnType<Date | null, undefined, Date | null>
  created_by: string
  created_at: ColumnType<Date, Date, never>
  updated_at: ColumnType<Date, Date, Date>
}

/** How near a team is to a quota, as it was last looked at: 0, or the level that it has reached, in percent. */
interface QuotaLevelsTable {
  team_id: string
  /** As in the answer of `GET /v1/quota`. */
  quota: string
  level: 0 | 80 | 100
  used: number
  limit: number
  /** When each level was told of last. */
  near_at: OptionalTime
  reached_at: OptionalTime
}

/** What people want of a capsule. What is on the way there is `state`; only the reconciler compares the two. */
export type DesiredState = 'running' | 'paused' | 'stopped'

/** What the host said last: `absent` when it answered without the capsule, `silent` when it did not answer. */
export type ObservedState = CapsuleState | 'absent' | 'silent'

/** What becomes of a capsule when its life is over. */
export type EndOfLife = 'kill' | 'pause'

/** A step of an operation, as the host measured it. */
export interface Timing {
  readonly step: string
  readonly ms: number
}

/**
 * Capsules, ended ones for as long as the platform keeps them. `generation` grows with each move; reports of an older one do
 * not count.
 */
export interface CapsulesTable {
  id: string
  team_id: string
  host_id: string | null
  name: string | null
  template: string
  vcpus: number
  memory_mib: number
  disk_size_mib: number
  timeout_sec: Generated<number>
  labels: Json<Record<string, string>>
  envs: Json<Record<string, string>>
  egress: Json<EgressPolicy | null>
  /** What the rules of `egress` set, encrypted. */
  egress_rules: ColumnType<string | null, string | null | undefined, string | null>
  /** Names of the team's secrets that they refer to; `null`: none. */
  secret_names: ColumnType<string[] | null, readonly string[] | null | undefined, readonly string[] | null>
  /** Grows with each change of `egress`. */
  egress_revision: Count
  /** The revision that its host reported last. */
  egress_in_force: Count
  default_user: Generated<string>
  default_cwd: Generated<string>
  state: CapsuleState
  desired_state: DesiredState
  observed_state: ObservedState | null
  observed_at: OptionalTime
  generation: Count
  engine: string | null
  engine_version: string | null
  kernel_version: string | null
  agent_version: string | null
  path: string | null
  timings: Json<readonly Timing[] | null>
  guest_address: string | null
  exit: Json<CapsuleExit | null>
  auto_resume: Generated<boolean>
  /** Opens the ports of a private capsule; `null`: they are public. */
  port_token: string | null
  /** Opens the guest agent to clients that speak its protocol; `null`: only a key of its team does. */
  access_token: string | null
  /** How long its life is after each start, unless somebody says otherwise; with `ends_at` and `on_end`, or none of the three. */
  lifetime_sec: number | null
  /** When its life ends, if it runs then. */
  ends_at: ColumnType<Date | null, Date | null | undefined, Date | RawBuilder<Date> | null>
  on_end: EndOfLife | null
  /** Of the last pause. */
  pause_reason: PauseReason | null
  paused_at: OptionalTime
  /** When the saved state of a paused capsule came to survive a power loss. */
  durable_at: OptionalTime
  /** Number of the saved state that a resume starts from; 0: none. */
  saved_generation: Count
  notice: string | null
  /** The state in the object store that it is; `null`: it is what its host has. */
  stored_state: ColumnType<string | null, undefined, string | null>
  /** The one that it goes back to when it ends, because its host has no durable one of it yet. */
  fallback_state: ColumnType<string | null, undefined, string | null>
  /** What a host must have that it wakes on, as its create asked. */
  host_tags: ColumnType<string[] | null, readonly string[] | null | undefined, readonly string[] | null>
  disk_bytes: Count
  parent_id: string | null
  snapshot_id: string | null
  /** The checkpoint it stands on: made or rolled back to last. */
  checkpoint_id: string | null
  /** What keeps it from being paused although its timeout is over. */
  awake_because: Json<readonly AwakeReason[] | null>
  /** Of the last pause, resume or rollback. */
  lifecycle_timings: Json<readonly Timing[] | null>
  /** Breaks ties of created_at in a page's cursor. */
  seq: Generated<number>
  created_at: Time
  started_at: OptionalTime
  stopped_at: OptionalTime
  last_active_at: OptionalTime
  updated_at: Time
}

/** What an operation does; each has an executor. */
export type OperationKind =
  | 'create'
  | 'destroy'
  | 'pause'
  | 'resume'
  | 'hibernate'
  | 'move'
  | 'fork'
  | 'checkpoint'
  | 'delete_checkpoint'
  | 'rollback'
  | 'snapshot'
  | 'atomic_exec'
/** `running` also while it waits to be tried again, or for somebody to take it over. */
export type OperationState = 'running' | 'succeeded' | 'failed'

/** Who asked for a change, as far as records of it go. */
export interface Actor {
  /** @default 'key' */
  readonly kind?: 'key' | 'user'
  /** Of the key, or of the person. */
  readonly id: string
  readonly name: string
  readonly requestId: string
  /** Where the request came from. */
  readonly ip: string
}

/** What was asked for and must come to its end, whoever dies meanwhile; also the memory of idempotency keys. */
export interface OperationsTable {
  id: string
  team_id: string
  capsule_id: string
  kind: OperationKind
  idempotency_key: string | null
  request_hash: string
  /** What it needs beside its capsule; enough for another process to carry it out. */
  params: Json<Readonly<Record<string, unknown>> | null>
  state: OperationState
  /** The answer, when it succeeded. */
  result: Json<Readonly<Record<string, unknown>> | null>
  /** The answer's error, when it failed. */
  error: Json<ErrorBody['error'] | null>
  /** Who asked for it; `null`: the platform itself. */
  actor: Json<Actor | null>
  attempts: Count
  generation: Count
  /** Whoever runs it renews this; afterwards another may take it over. */
  lease_until: ColumnType<Date, Date | RawBuilder<Date>, Date | RawBuilder<Date>>
  created_at: Time
  updated_at: Time
}

/** Only `ready` ones are listed and can be gone back to. A `deleting` one waits for its host. */
export type CheckpointState = 'creating' | 'ready' | 'deleting'

/** Checkpoints; they go with their capsule. */
export interface CheckpointsTable {
  id: string
  team_id: string
  capsule_id: string
  /** Unique in its capsule. */
  name: string
  parent_id: string | null
  state: CheckpointState
  /** Made by the platform for itself; not listed. */
  hidden: Generated<boolean>
  size_bytes: Count
  durable_at: OptionalTime
  seq: Generated<number>
  created_at: Time
}

/** `deleted`: its name is free, its files wait for the host. */
export type SnapshotState = 'creating' | 'ready' | 'deleting' | 'deleted'

/** Templates that teams made. They outlive the capsules they were made of. */
export interface SnapshotsTable {
  id: string
  team_id: string
  /** Unique in its team among those that are not deleted. */
  name: string
  capsule_id: string
  /** The one that has its files. */
  host_id: string | null
  /** The built-in template below it. */
  template: string
  vcpus: number
  memory_mib: number
  disk_size_mib: number
  size_bytes: Count
  state: SnapshotState
  durable_at: OptionalTime
  versions: Json<Readonly<Record<string, string>>>
  seq: Generated<number>
  created_at: Time
  /** When its name became free; its files may take longer to go. */
  deleted_at: OptionalTime
  /** Made by the platform for itself, and called by its id; not listed. */
  hidden: Generated<boolean>
  /** Of the build that made it. */
  build_id: string | null
  /** Of all steps that led to it, when a later build may start from it. */
  steps_hash: string | null
  /** When a build started from it last. */
  used_at: ColumnType<Date | null, Date | null | undefined, Date | RawBuilder<Date> | null>
  /** What capsules made of it run as, unless they say otherwise. */
  defaults: Json<TemplateDefaults | null>
}

/** As whom, where and with which environment commands run that say none of it. */
export interface ProcessDefaults {
  readonly user: string
  readonly cwd: string
  readonly envs: Readonly<Record<string, string>>
}

/** The same of a template, and what was started in it: who makes it anew from its disk starts that again. */
export interface TemplateDefaults extends ProcessDefaults {
  readonly startCmd?: string | undefined
  readonly readyCmd?: string | undefined
}

/** One step of a build: what to do, and whether also where a cached result is there. */
export interface BuildStep {
  readonly type: BuildStepType
  readonly args: readonly string[]
  /** Of the uploaded files of a `COPY`. */
  readonly filesHash?: string | undefined
  readonly force: boolean
  /** Of a `RUN`: program and arguments before what is run. @default bash -c */
  readonly shell?: readonly string[] | undefined
  /** Variables of this step alone. */
  readonly envs?: Readonly<Record<string, string>> | undefined
  /** Of a `RUN`: what it may read while it runs. */
  readonly secrets?: readonly StepSecret[] | undefined
  /** Of a `RUN`: folders that are empty while it runs, and of which nothing stays. */
  readonly scratch?: readonly string[] | undefined
  /** Of a `COPY` from an earlier stage: its place among them. */
  readonly stage?: number | undefined
  /** As its log calls it. */
  readonly label?: string | undefined
  /** Of the file that it was written in. */
  readonly line?: number | undefined
}

/** A secret in a step: as a file, as a variable, or both. */
export interface StepSecret {
  readonly id: string
  readonly path?: string | undefined
  readonly env?: string | undefined
  readonly mode?: number | undefined
  readonly owner?: string | undefined
}

/** A part of a build that is there to be copied from. */
export interface BuildStage {
  readonly from: string
  readonly steps: readonly BuildStep[]
}

/** What is remembered of a step after its build has ended, to say why a later one is done anew. */
export interface StepTrace {
  /** Of all it is but its files. */
  readonly hash: string
  readonly filesHash?: string | undefined
  readonly files?: readonly (readonly [path: string, digest: string])[] | undefined
}

/** An image that a build begins with, of a registry or of a file that the team has uploaded. */
export interface BuildImage {
  /** In full, with registry and tag or digest; of a file, as the plan calls it. */
  readonly reference: string
  /** By what its upload is called, and by what the image is called in it. */
  readonly file?: { readonly hash: string; readonly image?: string | undefined } | undefined
  /** Who asks the registry, encrypted for this build; it goes with the plan. */
  readonly login?: string | undefined
  /** What the template takes of how the image says that it is run: variables alone, or also user and directory. */
  readonly adopts: 'env' | 'all'
}

/** What a build is made of. */
export interface BuildPlan {
  /** Name of a template, built-in or the team's own; or what `images` has. */
  readonly from: string
  /** What it, or stages, begin with that are images, by `from`. */
  readonly images?: Readonly<Record<string, BuildImage>> | undefined
  readonly steps: readonly BuildStep[]
  /** Runs in what is built, from before its snapshot on. */
  readonly startCmd?: string | undefined
  /** The same as a container has it, instead of `startCmd`; where neither is given, it is that of the image that the last stage begins with. */
  readonly entrypoint?: readonly string[] | undefined
  /** What goes on the entry point. */
  readonly command?: readonly string[] | undefined
  /** One of them is waited for where there is no ready command, beside those of the image. */
  readonly ports?: readonly number[] | undefined
  /** Succeeds once the start command has done its work. */
  readonly readyCmd?: string | undefined
  /** What hosts that may build it have. */
  readonly hostTags?: readonly string[] | undefined
  /** Nothing cached is used. */
  readonly force: boolean
  /** Steps mean what the instructions of a Dockerfile do, and begin as root in `/` in a built-in template. */
  readonly isDockerfile?: boolean | undefined
  /** Those before the one that becomes the template. */
  readonly stages?: readonly BuildStage[] | undefined
  /** Encrypted, by their ids. */
  readonly secrets?: Readonly<Record<string, string>> | undefined
}

/** Why a build ended without a template, and at which step: `base`, a number from 1 on, or `finalize`. */
export interface BuildReason {
  readonly message: string
  readonly step?: string | undefined
  /** Of the file that the step was written in. */
  readonly line?: number | undefined
}

/** Builds of templates, ended ones for as long as the platform keeps them. */
export interface TemplateBuildsTable {
  id: string
  team_id: string
  /** Of the template. */
  name: string
  /**
   * `draft`: begun, and nobody has said yet of what. `waiting`: to be tried at `due_at`. `building`: somebody is at it, and holds it until
   * `due_at`. The others are ends.
   */
  state: BuildState
  /** `null`: those of what it is built from. */
  vcpus: number | null
  memory_mib: number | null
  plan: Json<BuildPlan | null>
  /** Of its steps, in their order through all stages. */
  trace: Json<readonly StepTrace[] | null>
  actor: Json<Actor | null>
  /** How often it was taken up; who took it up before must change nothing any more. */
  attempts: Count
  /** How many attempts failed for a reason that may pass. */
  failures: Count
  due_at: ColumnType<Date, Date | RawBuilder<Date> | undefined, Date | RawBuilder<Date>>
  /** Set when it is taken up first; a build that is not ready by then never is. */
  deadline_at: OptionalTime
  /** In which its steps run. */
  capsule_id: string | null
  log_count: Count
  log_bytes: Count
  snapshot_id: string | null
  /** What it is to be called beside the template's name; without any, or with `default`, that name stands for it. */
  tags: Generated<string[]>
  /** Of all stages; `null` until it is started. */
  steps: number | null
  /** How many of them the first attempt that came so far did not do, because of what earlier builds have kept. */
  cached_steps: number | null
  reason: Json<BuildReason | null>
  created_at: Time
  ended_at: ColumnType<Date | null, null | undefined, RawBuilder<Date>>
}

/** Names for builds of a template beside its own. */
interface TemplateTagsTable {
  team_id: string
  name: string
  tag: string
  snapshot_id: string
  created_at: ColumnType<Date, undefined, RawBuilder<Date>>
}

/** What builds say, in their order from 0 on without gaps. */
export interface TemplateBuildLogsTable {
  build_id: string
  seq: number
  at: Date
  level: BuildLogLevel
  step: string
  message: string
}

/** What links are signed with; made by migrations, the same for all control planes. */
export interface SigningKeysTable {
  purpose: string
  secret: string
}

/** What each host said last that a team takes of its pool, a shared block once. */
export interface PoolUsageTable {
  team_id: string
  host_id: string
  bytes: Count
  measured_at: Time
}

/** What happened in a team; only ever added to. `seq` and the hashes are its place in the chain, which it gets a moment later. */
export interface AuditTable {
  id: string
  team_id: string
  /** By the database's clock, to the millisecond: an entry's hash is over its wire form. */
  at: ColumnType<Date, Date | undefined, never>
  actor_type: 'key' | 'user' | 'token' | 'system'
  actor_id: string | null
  actor_name: string | null
  action: string
  resource_type: (typeof auditResources)[number]
  resource_id: string
  scope: 'team' | 'admin'
  outcome: (typeof auditOutcomes)[number]
  request_id: string | null
  ip: string | null
  details: JSONColumnType<Record<string, string>, string, never>
  seq: ColumnType<number | null, number | null | undefined, never>
  prev_hash: ColumnType<string | null, string | null | undefined, never>
  hash: ColumnType<string | null, string | null | undefined, never>
}

/** Where each team's chain begins and ends. */
export interface AuditChainsTable {
  team_id: string
  /** Of the oldest entry that is kept. */
  first_seq: Count
  /** 0: none yet. */
  last_seq: Count
  last_hash: string
}

/** `pending` until the link of the activation mail was followed; a disabled one may do nothing, in no team. */
export type UserStatus = 'pending' | 'active' | 'disabled'

/** People's accounts. */
export interface UsersTable {
  id: string
  /** Unique, whatever its case; stored in lower case. Empty once the account is erased. */
  email: string
  name: string
  /** argon2id in its own text form; `null`: nobody can log in with a password. */
  password_hash: string | null
  status: ColumnType<UserStatus, UserStatus | undefined, UserStatus>
  /** Of the platform, beside what they are in teams. */
  is_admin: Generated<boolean>
  created_at: Time
  updated_at: ColumnType<Date, Date | undefined, Date | RawBuilder<Date>>
  /** When its owner asked for its end: from then on nobody can log in to it. */
  deleted_at: ColumnType<Date | null, null | undefined, RawBuilder<Date> | null>
  /** Until when that can be taken back. */
  erase_at: ColumnType<Date | null, null | undefined, RawBuilder<Date> | null>
  /** From then on address, name and password are empty. */
  erased_at: ColumnType<Date | null, null | undefined, RawBuilder<Date>>
}

/** Authenticator apps (RFC 6238). */
export interface TotpFactorsTable {
  user_id: string
  /** Encrypted. */
  secret: string
  /** Of the last code that was taken. */
  last_step: Count
  created_at: ColumnType<Date, undefined, RawBuilder<Date>>
  /** `null`: no code was given yet, so it counts for nothing. */
  confirmed_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** What stands in for a lost factor, by digest. */
export interface RecoveryCodesTable {
  user_id: string
  digest: string
  used_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** What people sign in with instead of a password, or after it (WebAuthn). */
export interface PasskeysTable {
  id: string
  user_id: string
  name: string
  /** The authenticator's own; unique, base64url. */
  credential_id: string
  /** COSE, base64url. */
  public_key: string
  /** Grows with each signature, where the authenticator counts at all. */
  counter: Count
  transports: ColumnType<string[], readonly string[], never>
  backed_up: boolean
  created_at: Time
  last_used_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** Logins that wait for a second factor, by the digest of the token that each has. */
export interface LoginStepsTable {
  digest: string
  user_id: string
  place: string
  restore: boolean
  provider: string | null
  failures: Count
  created_at: Time
  expires_at: ColumnType<Date, RawBuilder<Date>, never>
}

/** What passkeys are asked to sign, by digest; each is good once. */
export interface PasskeyChallengesTable {
  digest: string
  purpose: string
  bound_to: string
  expires_at: ColumnType<Date, RawBuilder<Date>, never>
}

/** Who is in which team. */
export interface TeamMembersTable {
  team_id: string
  user_id: string
  role: 'owner' | 'admin' | 'member' | 'viewer'
  joined_at: Time
}

/** Logins. Each is a family of tokens, of which the newest refresh token counts; a token itself is in no table. */
export interface SessionsTable {
  id: string
  user_id: string
  /** The team that its holder works in now. */
  team_id: string
  /** SHA-256 of the refresh token that counts, hexadecimal. */
  refresh_hash: string
  /** SHA-256 of the one before. */
  rotated_from: string | null
  /** Each refresh token's successor is its HMAC with this key, hexadecimal. */
  rotation_key: string
  rotations: Count
  rotated_at: ColumnType<Date, undefined, RawBuilder<Date>>
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, Date | RawBuilder<Date>>
  last_used_at: ColumnType<Date, undefined, Date | RawBuilder<Date>>
  /** Of the request that used it last, when it was rotated. */
  ip: string
  user_agent: string
  created_at: Time
  revoked_at: ColumnType<Date | null, null | undefined, Date | RawBuilder<Date>>
  /** When its person last proved to it who they are. */
  confirmed_at: ColumnType<Date, Date | RawBuilder<Date> | undefined, RawBuilder<Date>>
}

/** What requests of sessions are made with, by digest. */
export interface AccessTokensTable {
  digest: string
  session_id: string
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, never>
}

/** What links in mails carry, by digest; each is good for one use. */
export interface EmailTokensTable {
  digest: string
  kind: 'activation' | 'password-reset'
  user_id: string
  /** As whom and with which password its sign-up wanted the account. */
  name: string | null
  password_hash: string | null
  created_at: Time
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, never>
  used_at: ColumnType<Date | null, null | undefined, Date | RawBuilder<Date>>
}

/** Programs that wait until a person lets them in. */
export interface DeviceLoginsTable {
  /** SHA-256 of the program's own code, hexadecimal. */
  digest: string
  /** What its person types; unique. */
  user_code: string
  /** What the program says of itself. */
  client: string
  ip: string
  created_at: Time
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, never>
  /** The session that let it in or sent it away. */
  decided_by: string | null
  denied: ColumnType<boolean, boolean | undefined, boolean>
}

/** Who people are to providers. */
export interface OauthIdentitiesTable {
  /** Id in the settings; with the issuer, because a setting may come to name another one. */
  provider: string
  issuer: string
  /** Of the provider, and never another person's. */
  subject: string
  /** Has one of each provider at most. */
  user_id: string
  created_at: ColumnType<Date, undefined, never>
}

/** Sign-ins that are under way at a provider. What they are checked with is derived from what the browser keeps. */
export interface OauthFlowsTable {
  /** SHA-256 of the state, hexadecimal. */
  digest: string
  /** SHA-256 of what the browser's cookie has. */
  browser: string
  provider: string
  intent: 'login' | 'signup' | 'link'
  /** Page to go to afterwards. */
  next: string | null
  /** Of a link: the session that wants it. */
  session_id: string | null
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, never>
}

/** Sign-ins that were finished at a provider, until the page fetches their session. */
export interface OauthCodesTable {
  /** SHA-256 of the code, hexadecimal. */
  digest: string
  browser: string
  provider: string
  issuer: string
  subject: string
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, never>
}

/** What happened in a team, for a day; only triggers write it. */
export interface EventsTable {
  team_id: string
  /** Of the transaction that it happened in; text, because it has 64 bits. */
  xid: ColumnType<string, never, never>
  id: ColumnType<number, never, never>
  at: ColumnType<Date, never, never>
  type: string
  resource_id: string
  data: JSONColumnType<Record<string, unknown>, never, never>
}

/** What the link of the set-up carries, by digest. */
export interface SetUpCodesTable {
  /** Always true, and the key: there is one at most. */
  is_only: true
  digest: string
  created_at: ColumnType<Date, undefined, Date | RawBuilder<Date>>
}

/** How often something was tried of late. */
export interface AttemptsTable {
  bucket: string
  count: number
  since: Date
  until: Date
}

/** Who was invited to a team. What its link carries is stored by digest. */
export interface InvitationsTable {
  id: string
  team_id: string
  /** In lower case. */
  email: string
  role: 'admin' | 'member' | 'viewer'
  token_digest: string
  /** Id of a person or a key. */
  invited_by: string
  inviter_name: string
  /** How often. */
  sent: Count
  sent_at: ColumnType<Date, undefined, RawBuilder<Date>>
  created_at: Time
  expires_at: ColumnType<Date, Date | RawBuilder<Date>, Date | RawBuilder<Date>>
  accepted_at: ColumnType<Date | null, null | undefined, Date | RawBuilder<Date>>
  revoked_at: ColumnType<Date | null, null | undefined, Date | RawBuilder<Date>>
}

/** Mails on their way. Its link's token is in `data` until the mail was taken or given up, and nowhere afterwards. */
export interface MailsTable {
  id: string
  recipient: string
  /** A newer version may have written one that this one does not know. */
  kind: string
  data: Json<Readonly<Record<string, string>> | null>
  attempts: Count
  /** When it is tried next; while it is tried, when another may. */
  next_at: ColumnType<Date, Date | undefined, Date | RawBuilder<Date>>
  expires_at: ColumnType<Date, Date, never>
  created_at: Time
  given_up_at: ColumnType<Date | null, null | undefined, RawBuilder<Date>>
  reason: string | null
}

/** What a capsule used in a stretch of time. */
interface CapsuleMetricsTable {
  /** `seq` of the capsule. */
  capsule_seq: number
  /** Resolution: 0 is the finest. */
  tier: number
  /** Unix time in seconds of the stretch's begin. */
  at: number
  /** As `metric-points.ts` packs them. */
  points: Buffer
}

/** How a team's builds log in at a registry of images. */
interface RegistryLoginsTable {
  team_id: string
  /** `host[:port]`, as references of images have it. */
  registry: string
  username: string
  /** Encrypted. */
  password: string
  created_at: ColumnType<Date, undefined, never>
  updated_at: ColumnType<Date, undefined, RawBuilder<Date>>
}

/** A secret of a team, which rules of egress policies refer to. */
interface SecretsTable {
  id: string
  team_id: string
  /** In small letters, unique among those of its team that are not deleted. */
  name: string
  /** Encrypted; empty for one that is deleted. */
  value: string
  /** Grows with each value, and with the deletion. */
  version: Count
  /** The version that was noted at capsules whose rules refer to it. */
  told_version: Count
  metadata: JSONColumnType<Record<string, string>, string, string>
  created_at: ColumnType<Date, undefined, never>
  updated_at: ColumnType<Date, undefined, RawBuilder<Date>>
  /** It stays until capsules are told. */
  deleted_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** Where a team wants its events sent to. */
interface ChannelsTable {
  id: string
  team_id: string
  /** Unique in its team. */
  name: string
  provider: ChannelProvider
  /** Encrypted; what it is addressed with. */
  config: string
  /** For people: a part of that which is no secret. */
  target: string
  events: ColumnType<string[], readonly string[], readonly string[]>
  enabled: Generated<boolean>
  /** Grows with each change that people make. */
  revision: Count
  /** Why the last attempt failed. */
  problem: string | null
  /** How many attempts have failed since one did not. */
  failures: Count
  /** Not before. */
  next_at: ColumnType<Date, undefined, RawBuilder<Date>>
  /** Grows with each take; who took it before must change nothing of its queue any more. */
  lease: Count
  leased_until: ColumnType<Date | null, undefined, RawBuilder<Date> | null>
  created_at: Time
  updated_at: ColumnType<Date, undefined, RawBuilder<Date>>
}

/** What a request to a target was, as far as it may be shown. */
export interface DeliveryRequest {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** What came back, as far as it may be shown. */
export interface DeliveryAnswer {
  readonly status: number
  readonly body: string
  readonly duration_ms: number
}

/** Events for channels, to be sent and sent; a trigger adds them. */
interface ChannelDeliveriesTable {
  seq: ColumnType<number, never, never>
  id: ColumnType<string, never, never>
  channel_id: string
  type: string
  resource_id: string
  /** What is in one is sent in its order. */
  lane: string
  at: Date
  data: JSONColumnType<Record<string, unknown>, never, never>
  state: 'pending' | 'delivered' | 'dead'
  attempts: Count
  /** When it came to wait. */
  queued_at: ColumnType<Date, undefined, RawBuilder<Date>>
  ended_at: ColumnType<Date | null, undefined, RawBuilder<Date> | null>
  reason: string | null
  request: Json<DeliveryRequest | null>
  answer: Json<DeliveryAnswer | null>
}

/** What a capsule held from a change of it to the next one; only triggers write it. */
interface UsageLedgerTable {
  id: ColumnType<number, never, never>
  capsule_id: string
  team_id: string
  template: string
  state: CapsuleState
  vcpus: number
  memory_mib: number
  disk_size_mib: number
  began_at: Date
  /** `null`: until now. */
  ended_at: Date | null
}

/** How far the ledger is closed, rolled up and kept: one row. */
interface UsageStateTable {
  is_only: true
  /** Nothing is entered any more before it. */
  closed_until: Date
  /** Days before it are rolled up. */
  rolled_until: string
  /** Days from it on can be rolled up anew. */
  kept_from: string
}

/** Sums of the ledger by team, day or month, and template; exact, as text. */
interface UsageRollupsTable {
  team_id: string
  period: 'day' | 'month'
  date: string
  template: string
  vcpu_seconds: string
  memory_mib_seconds: string
  /** Of paused capsules. */
  paused_mib_seconds: string
  disk_mib_seconds: string
  net_rx_bytes: string
  net_tx_bytes: string
}

/** How far the counters of a guest's network card were seen. */
interface UsageCountersTable {
  capsule_id: string
  guest_id: string
  rx_bytes: number
  tx_bytes: number
  grown_at: Time
}

/** What a capsule received and sent on a day, while it was a team's. */
interface UsageTrafficTable {
  date: string
  capsule_id: string
  team_id: string
  template: string
  rx_bytes: number
  tx_bytes: number
}

/** The most that a team's capsules held at a time, in steps of six hours. */
interface UsagePeaksTable {
  team_id: string
  at: Date
  running: number
  vcpus: number
  memory_mib: number
}

/** Days whose sums are new or others than those that were told, while nobody has told of it. */
interface UsageChangedDaysTable {
  date: string
}

/** What a billing system is told: how much the sum of a day has become more. */
interface LagoEventsTable {
  seq: ColumnType<number, never, never>
  team_id: string
  date: string
  metric: string
  /** From 1 on, of a sum. */
  revision: number
  /** Exact, as text. */
  value: string
  queued_at: Time
  /** How often it was refused. */
  attempts: Count
  /** Not before, once it was refused. */
  next_at: Time
  reason: string | null
  /** `null`: it waits. */
  taken_at: Date | null
}

/** Who sends events to the billing system, and how that goes: one row. */
interface LagoStateTable {
  is_only: true
  /** The first day that is told of where nothing else is set. */
  since: string | null
  lease: Count
  leased_until: Date | null
  next_at: Time
  failures: Count
  problem: string | null
}

/** All tables, as migrations leave them; Kysely checks queries against it. */
/** States of capsules in the object store, or on their way there. */
interface StoredStatesTable {
  id: string
  team_id: string
  capsule_id: string
  /** Begins what the key has sealed that those of the team are derived from. */
  sealed_by: string
  /** Digests of the read-only files that it stands on; while it is on its way, of all that it may. */
  layers: ColumnType<string[], readonly string[], readonly string[]>
  bytes: Count | null
  /** Of its capsule when it was stored: who has fetched it has done so as a later one. */
  generation: Count | null
  created_at: Time
  whole_at: ColumnType<Date | null, undefined, RawBuilder<Date>>
}

/** Read-only files of states that are in the object store. */
interface StoredLayersTable {
  team_id: string
  sealed_by: string
  digest: string
}

/** Who has something in the object store. */
interface StoredTeamsTable {
  team_id: string
  sealed_by: string
  /** Whether something may be there in vain. */
  has_waste: Generated<boolean>
  /** Since when that waits until nobody stores. */
  waits_since: ColumnType<Date | null, undefined, RawBuilder<Date> | null>
  /** Until then nothing is begun to be stored. */
  collecting_until: ColumnType<Date | null, undefined, RawBuilder<Date> | null>
}

/** What hosts have of capsules that were stored, and may free. */
interface StateLeftoversTable {
  state_id: string
  capsule_id: string
  /** Empty: the only one. */
  host_id: string
  /** By which it came there; 0: it was stored from there. */
  attempt: Count
  created_at: Time
}

/** Hosts that are being emptied, or were and get nothing new. */
interface HostDrainsTable {
  host_id: string
  /** How many capsules are on their way at once. */
  concurrency: number
  actor: Json<Actor | null>
  started_at: Time
  /** When nothing was left; `null` while something is. */
  ended_at: ColumnType<Date | null, never, Date | RawBuilder<Date> | null>
  /** Whoever looks after it renews this; afterwards another may. */
  looked_until: Time
}

/** What comes of each capsule of a host that is emptied. */
export type DrainedState = 'waiting' | 'moving' | 'done' | 'failed'

interface DrainedCapsulesTable {
  host_id: string
  capsule_id: string
  team_id: string
  state: DrainedState
  /** The newest move. */
  operation_id: string | null
  /** That failed. */
  attempts: number
  next_at: Time
  /** Why it failed last. */
  error: Json<{ readonly code: string; readonly message: string } | null>
  updated_at: Time
}

export interface Database {
  teams: TeamsTable
  plans: PlansTable
  team_calls: TeamCallsTable
  api_keys: ApiKeysTable
  hosts: HostsTable
  host_authorities: HostAuthoritiesTable
  host_certificates: HostCertificatesTable
  joined_hosts: JoinedHostsTable
  capsules: CapsulesTable
  operations: OperationsTable
  checkpoints: CheckpointsTable
  snapshots: SnapshotsTable
  stored_states: StoredStatesTable
  stored_layers: StoredLayersTable
  stored_teams: StoredTeamsTable
  state_leftovers: StateLeftoversTable
  host_drains: HostDrainsTable
  drained_capsules: DrainedCapsulesTable
  template_builds: TemplateBuildsTable
  template_tags: TemplateTagsTable
  template_build_logs: TemplateBuildLogsTable
  signing_keys: SigningKeysTable
  pool_usage: PoolUsageTable
  quota_levels: QuotaLevelsTable
  capsule_metrics: CapsuleMetricsTable
  usage_ledger: UsageLedgerTable
  usage_state: UsageStateTable
  usage_rollups: UsageRollupsTable
  usage_counters: UsageCountersTable
  usage_traffic: UsageTrafficTable
  usage_peaks: UsagePeaksTable
  usage_changed_days: UsageChangedDaysTable
  lago_events: LagoEventsTable
  lago_state: LagoStateTable
  audit_log: AuditTable
  audit_chains: AuditChainsTable
  users: UsersTable
  totp_factors: TotpFactorsTable
  recovery_codes: RecoveryCodesTable
  passkeys: PasskeysTable
  login_steps: LoginStepsTable
  passkey_challenges: PasskeyChallengesTable
  team_members: TeamMembersTable
  sessions: SessionsTable
  access_tokens: AccessTokensTable
  email_tokens: EmailTokensTable
  device_logins: DeviceLoginsTable
  oauth_identities: OauthIdentitiesTable
  oauth_flows: OauthFlowsTable
  oauth_codes: OauthCodesTable
  events: EventsTable
  set_up_codes: SetUpCodesTable
  attempts: AttemptsTable
  mails: MailsTable
  invitations: InvitationsTable
  registry_logins: RegistryLoginsTable
  secrets: SecretsTable
  channels: ChannelsTable
  channel_deliveries: ChannelDeliveriesTable
}

/** A key, in the form of {@link CapsuleRow}. */
export type ApiKeyRow = Selectable<ApiKeysTable>
/** Whom hosts and control planes trust, in the form of {@link CapsuleRow}. */
export type HostAuthorityRow = Selectable<HostAuthoritiesTable>
/** Another machine, in the form of {@link CapsuleRow}. */
export type JoinedHostRow = Selectable<JoinedHostsTable>
/** An account, in the form of {@link CapsuleRow}. */
export type UserRow = Selectable<UsersTable>
/** An authenticator app, in the form of {@link CapsuleRow}. */
export type TotpRow = Selectable<TotpFactorsTable>
/** A passkey, in the form of {@link CapsuleRow}. */
export type PasskeyRow = Selectable<PasskeysTable>
/** A login that waits, in the form of {@link CapsuleRow}. */
export type LoginStepRow = Selectable<LoginStepsTable>
/** A session, in the form of {@link CapsuleRow}. */
export type SessionRow = Selectable<SessionsTable>
/** An entry of the audit trail, in the form of {@link CapsuleRow}. */
export type AuditRow = Selectable<AuditTable>
/** A team, in the form of {@link CapsuleRow}. */
export type TeamRow = Selectable<TeamsTable>
/** A plan, in the form of {@link CapsuleRow}. */
export type PlanRow = Selectable<PlansTable>
/** An event, in the form of {@link CapsuleRow}. */
export type EventRow = Selectable<EventsTable>
/** An invitation, in the form of {@link CapsuleRow}. */
export type InvitationRow = Selectable<InvitationsTable>
/** A login at a registry, in the form of {@link CapsuleRow}. */
export type RegistryLoginRow = Selectable<RegistryLoginsTable>
export type SecretRow = Selectable<SecretsTable>
/** A channel, in the form of {@link CapsuleRow}. */
export type ChannelRow = Selectable<ChannelsTable>
/** An event for a channel, in the form of {@link CapsuleRow}. */
export type DeliveryRow = Selectable<ChannelDeliveriesTable>
/** A mail that waits, in the form of {@link CapsuleRow}. */
export type MailRow = Selectable<MailsTable>
/** The ends of a chain, in the form of {@link CapsuleRow}. */
export type AuditChainRow = Selectable<AuditChainsTable>
/** A capsule as queries give it: times are `Date`s, counts numbers, JSON is parsed, and absence is null. */
export type CapsuleRow = Selectable<CapsulesTable>
/** An operation, in the form of {@link CapsuleRow}. */
export type OperationRow = Selectable<OperationsTable>
/** A checkpoint, in the form of {@link CapsuleRow}. */
export type CheckpointRow = Selectable<CheckpointsTable>
/** A build, in the form of {@link CapsuleRow}. */
export type TemplateBuildRow = Selectable<TemplateBuildsTable>
/** A build without all that it is made of, which may have megabytes. */
export type TemplateBuildInfo = Omit<TemplateBuildRow, 'plan' | 'trace'> & {
  /** As who began it is called now, when that is a person. */
  readonly person?: string | null
}
/** A line of a build's log, in the form of {@link CapsuleRow}. */
export type TemplateBuildLogRow = Selectable<TemplateBuildLogsTable>
/** A state in the object store, in the form of {@link CapsuleRow}. */
export type StoredStateRow = Selectable<StoredStatesTable>
/** What a host may free, in the form of {@link CapsuleRow}. */
export type StateLeftoverRow = Selectable<StateLeftoversTable>
/** A host that is being emptied, in the form of {@link CapsuleRow}. */
export type HostDrainRow = Selectable<HostDrainsTable>
/** A capsule of one, in the form of {@link CapsuleRow}. */
export type DrainedCapsuleRow = Selectable<DrainedCapsulesTable>
/** A snapshot, in the form of {@link CapsuleRow}. */
export type SnapshotRow = Selectable<SnapshotsTable>
