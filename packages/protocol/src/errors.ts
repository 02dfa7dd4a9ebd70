/** What an error code means to a caller. `connect` is the Connect RPC code it travels under between our own processes. */
export interface ErrorKind {
  readonly status: number
  readonly connect: string
  readonly retryable: boolean
  /** The next step for a person, or `undefined` when the message says all. */
  readonly hint?: string
}

/** Every error code of the product. Status maps, `docs/errors.md` and the SDK's error classes derive from this table. */
export const errorTable = {
  invalid_request: { status: 400, connect: 'invalid_argument', retryable: false },
  invalid_config: { status: 500, connect: 'failed_precondition', retryable: false },
  target_refused: {
    status: 400,
    connect: 'invalid_argument',
    retryable: false,
    hint: 'Channels send to public addresses by https. The operator can allow networks: WRENN_CHANNEL_ALLOW.',
  },
  webhook_invalid: {
    status: 400,
    connect: 'invalid_argument',
    retryable: false,
    hint: 'Answer 400 and do nothing. Where it is of a channel, compare the secret, and verify the body as it came, byte for byte.',
  },
  not_a_directory: { status: 400, connect: 'invalid_argument', retryable: false },
  is_a_directory: {
    status: 400,
    connect: 'invalid_argument',
    retryable: false,
    hint: 'List a directory with files/list.',
  },
  unauthorized: {
    status: 401,
    connect: 'unauthenticated',
    retryable: false,
    hint: 'Send a valid key in the X-API-Key header; `wrenn up` writes the first one to <dir>/api-key.',
  },
  host_not_trusted: {
    status: 401,
    connect: 'unauthenticated',
    retryable: false,
    hint: 'An admin of the platform can make another token: `wrenn host token`; then `wrenn host join` on that machine.',
  },
  wrong_code: { status: 400, connect: 'invalid_argument', retryable: false },
  wrong_password: { status: 401, connect: 'unauthenticated', retryable: false },
  invalid_token: {
    status: 400,
    connect: 'invalid_argument',
    retryable: false,
    hint: 'Ask for another mail: sign up again, or reset the password again. An admin of the platform can make another link; that of the set-up is printed by `wrenn up`.',
  },
  login_expired: {
    status: 400,
    connect: 'invalid_argument',
    retryable: false,
    hint: 'Begin another login.',
  },
  last_login_method: {
    status: 400,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'Choose a password first, or connect another provider.',
  },
  account_not_activated: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'Signing up again with the same address sends another mail.',
  },
  account_disabled: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'An admin of the platform can enable it.',
  },
  account_deactivated: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'An admin of the platform can enable it.',
  },
  deletion_pending: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'Log in with {"restore": true} to keep it: the login page offers that, and `wrenn login --email … --restore` does it. An admin of the platform can too: `wrenn user restore`.',
  },
  confirmation_needed: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'Prove that it is you with POST /v1/auth/confirm, or log in again, and repeat the call.',
  },
  no_team: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'Log in again: a login picks a team that you are in.',
  },
  forbidden: { status: 403, connect: 'permission_denied', retryable: false },
  permission_denied: { status: 403, connect: 'permission_denied', retryable: false },
  registry_refused: {
    status: 403,
    connect: 'permission_denied',
    retryable: false,
    hint: 'The operator says which registries there are: WRENN_REGISTRIES, WRENN_REGISTRIES_ALLOW and WRENN_REGISTRIES_PLAIN. A login goes with the build.',
  },
  not_found: { status: 404, connect: 'not_found', retryable: false },
  capsule_not_found: { status: 404, connect: 'not_found', retryable: false },
  template_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List templates with GET /v1/snapshots.',
  },
  image_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'Compare name, tag and registry. Registries answer the same for an image that is not there and for one that needs a login.',
  },
  checkpoint_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List checkpoints with GET /v1/capsules/{id}/checkpoints.',
  },
  api_key_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List the keys of the team with GET /v1/api-keys.',
  },
  channel_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List the channels of the team with GET /v1/channels.',
  },
  delivery_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'The log of a channel, GET /v1/channels/{id}/deliveries, has those that are kept.',
  },
  build_not_found: { status: 404, connect: 'not_found', retryable: false },
  user_not_found: { status: 404, connect: 'not_found', retryable: false },
  session_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List your sessions with GET /v1/auth/sessions.',
  },
  team_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List your teams with GET /v1/teams; a session works in one of them at a time.',
  },
  provider_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List the providers with GET /v1/auth/providers.',
  },
  host_not_found: {
    status: 404,
    connect: 'not_found',
    retryable: false,
    hint: 'List hosts with GET /v1/hosts.',
  },
  member_not_found: { status: 404, connect: 'not_found', retryable: false },
  invitation_not_found: { status: 404, connect: 'not_found', retryable: false },
  process_not_found: { status: 404, connect: 'not_found', retryable: false },
  file_not_found: { status: 404, connect: 'not_found', retryable: false },
  method_not_allowed: { status: 405, connect: 'unimplemented', retryable: false },
  conflict: { status: 409, connect: 'already_exists', retryable: false },
  invalid_state: { status: 409, connect: 'failed_precondition', retryable: false },
  state_not_loadable: {
    status: 409,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'Nothing of the state was touched. A capsule can start from its disk, with its files and without its processes: resume or rollback with {"from": "disk"} (`wrenn capsule resume --from disk`). Or the operator runs a QEMU that has what the message names: `wrenn up --qemu`.',
  },
  owns_team_with_members: {
    status: 409,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'Hand the team over (`wrenn team transfer`, POST /v1/teams/{id}/transfer), remove the others, or delete it.',
  },
  email_taken: { status: 409, connect: 'already_exists', retryable: false },
  name_reserved: {
    status: 409,
    connect: 'already_exists',
    retryable: false,
    hint: 'Choose a name that no built-in template has.',
  },
  template_name_taken: {
    status: 409,
    connect: 'already_exists',
    retryable: false,
    hint: 'Choose another name, or delete the snapshot that has it.',
  },
  in_use: {
    status: 409,
    connect: 'failed_precondition',
    retryable: true,
    hint: 'The message says what uses it; try again when that is over.',
  },
  upload_interrupted: {
    status: 409,
    connect: 'aborted',
    retryable: true,
    hint: 'Send the file again. A paused capsule takes it after a resume, or at once when it has auto_resume.',
  },
  copy_incomplete: {
    status: 409,
    connect: 'aborted',
    retryable: false,
    hint: 'The messages before name what is missing; everything else was copied.',
  },
  transfer_interrupted: {
    status: 409,
    connect: 'aborted',
    retryable: true,
    hint: 'Copy it again. A paused capsule takes part after a resume, or at once when it has auto_resume.',
  },
  rolled_back: {
    status: 409,
    connect: 'aborted',
    retryable: false,
    hint: 'The process belongs to a time that the capsule has left.',
  },
  audit_broken: {
    status: 409,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'What comes before the place that the message names is as it was written; compare with another export.',
  },
  idempotency_mismatch: {
    status: 409,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'Use a new Idempotency-Key for a different request.',
  },
  build_failed: {
    status: 409,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'The log of the build has the output of the step that the message names.',
  },
  capsule_ended: {
    status: 410,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'Ports lead to a running capsule. One that is in error may still be resumed, or rolled back to a checkpoint.',
  },
  precondition_failed: {
    status: 412,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'Read the file again; its ETag says which version it is.',
  },
  too_large: { status: 413, connect: 'resource_exhausted', retryable: false },
  unsupported_media_type: { status: 415, connect: 'invalid_argument', retryable: false },
  range_not_satisfiable: { status: 416, connect: 'out_of_range', retryable: false },
  image_not_usable: {
    status: 422,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'The message says what is wrong with the image; limits are WRENN_IMAGE_MAX_MIB and WRENN_IMAGE_MAX_FILES.',
  },
  limit_exceeded: { status: 429, connect: 'resource_exhausted', retryable: true },
  pool_exhausted: {
    status: 429,
    connect: 'resource_exhausted',
    retryable: true,
    hint: 'Destroy or pause a capsule, or raise the limit.',
  },
  internal: { status: 500, connect: 'internal', retryable: false, hint: 'Report the request id to the operator.' },
  not_supported: { status: 501, connect: 'unimplemented', retryable: false },
  channel_test_failed: {
    status: 502,
    connect: 'unavailable',
    retryable: false,
    hint: 'The message and `details.answer` say what came back.',
  },
  port_closed: {
    status: 502,
    connect: 'unavailable',
    retryable: true,
    hint: 'Start a service on that port of the capsule; 0.0.0.0, 127.0.0.1 and ::1 will all do.',
  },
  guest_error: { status: 502, connect: 'unavailable', retryable: true },
  guest_died: {
    status: 502,
    connect: 'aborted',
    retryable: false,
    hint: 'Where the capsule is in error, its record says what ended it; resume it, or roll it back to a checkpoint.',
  },
  guest_unreachable: {
    status: 504,
    connect: 'unavailable',
    retryable: true,
    hint: 'Its network or agent is down, or it has no CPU or memory left. Pause, checkpoint, rollback and destroy do not need its answer; a rollback to an earlier checkpoint rescues it.',
  },
  host_unavailable: {
    status: 503,
    connect: 'unavailable',
    retryable: true,
    hint: 'Try again in a few seconds; GET /ready says what the platform waits for.',
  },
  no_hosts_available: { status: 503, connect: 'unavailable', retryable: true },
  provider_unavailable: {
    status: 503,
    connect: 'unavailable',
    retryable: true,
    hint: 'Try again in a minute; the log of the control plane says what the provider answered.',
  },
  registry_unavailable: {
    status: 503,
    connect: 'unavailable',
    retryable: true,
    hint: 'Try again in a minute; a build does so by itself.',
  },
  object_store_unavailable: {
    status: 503,
    connect: 'unavailable',
    retryable: true,
    hint: 'Try again in a minute; `wrenn doctor` on the host says whether the object store answers.',
  },
  database_unavailable: { status: 503, connect: 'unavailable', retryable: true },
  engine_failure: { status: 500, connect: 'internal', retryable: true, hint: 'Run `wrenn doctor`.' },
  snapshot_damaged: {
    status: 500,
    connect: 'internal',
    retryable: false,
    hint: 'The message names the damaged file. Roll back to an older checkpoint, or start the capsule from its disk: resume with {"from": "disk"}.',
  },
  object_store_refused: {
    status: 500,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'The operator changes the settings WRENN_OBJECT_STORE… that the message names, or the server; `wrenn doctor` says whether it works then.',
  },
  stored_state_not_found: { status: 404, connect: 'not_found', retryable: false },
  stored_state_wrong_key: {
    status: 500,
    connect: 'failed_precondition',
    retryable: false,
    hint: 'The operator puts the key that was used before into WRENN_ENCRYPTION_KEY, behind the one that encrypts now.',
  },
  stored_state_damaged: {
    status: 500,
    connect: 'internal',
    retryable: false,
    hint: 'The message names the object. A server that keeps versions of objects may still have it; the operator looks there.',
  },
  image_build_failed: {
    status: 500,
    connect: 'internal',
    retryable: true,
    hint: "The message has the failing tool's last lines; `wrenn doctor` checks the tools an image needs.",
  },
  timeout: { status: 504, connect: 'deadline_exceeded', retryable: true },
  disk_full: {
    status: 507,
    connect: 'resource_exhausted',
    retryable: false,
    hint: 'Remove files, or create with a larger disk_size_mb.',
  },
} as const satisfies Record<string, ErrorKind>

/** A code that clients may branch on. It stays once it was released; a new one is an addition that clients must bear. */
export type ErrorCode = keyof typeof errorTable

/** Whether the table has the code. A newer server may send one that this client's table lacks. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code)
}

/** The kind of any code; an unknown one counts as `internal`. */
export function errorKind(code: string): ErrorKind {
  return isErrorCode(code) ? errorTable[code] : errorTable.internal
}

/** Connect metadata key under which a code travels between our own processes. */
export const ERROR_CODE_HEADER = 'wrenn-error-code'

/** Connect metadata key, and HTTP header, of the seconds after which to try again: `retryAfterSec` of an error's details. */
export const RETRY_AFTER_HEADER = 'retry-after'
