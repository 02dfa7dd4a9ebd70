import { AppError } from '@wrenn/base'
import { capsuleEnvsSchema, createCapsuleSchema, requestBody, text } from '@wrenn/protocol'
import { z } from 'zod'
import type { CapsuleSpec } from '../domain/capsules/index.js'
import { egressOf, networkSchema, refuseUnsupported } from './network.js'
import { templateNameOf } from './template-id.js'

const YEAR_SEC = 31_536_000
/** Of the older route, whose clients always send one. */
export const OLD_DEFAULT_TIMEOUT_SEC = 15
export const DEFAULT_TIMEOUT_SEC = 300

/** Whom a sandbox's commands and files belong to, unless they or its template say otherwise. */
export const sandboxDefaults = { user: 'user', cwd: '/home/user' } as const

/** How long a sandbox lives. */
export const timeoutSchema = z.int().min(0).max(YEAR_SEC)

/** Labels are metadata by another name; theirs may be longer than ours. */
const metadataSchema = z.record(text(256), text(4096))

/** Body of `POST /sandboxes` and `/v2/sandboxes`. */
export const createSandboxSchema = requestBody({
  templateID: text(200, 1),
  timeout: timeoutSchema.optional(),
  metadata: metadataSchema.optional(),
  envVars: capsuleEnvsSchema.optional(),
  secure: z.boolean().optional(),
  allow_internet_access: z.boolean().optional(),
  network: networkSchema.optional(),
  autoPause: z.boolean().optional(),
  autoPauseMemory: z.boolean().optional(),
  autoResume: requestBody({ enabled: z.boolean().optional() }).optional(),
  volumeMounts: z.unknown().optional(),
  mcp: z.unknown().optional(),
  iam: z.unknown().optional(),
})
type CreateSandboxInput = z.output<typeof createSandboxSchema>

/**
 * The capsule that a client asks for.
 * @throws AppError `invalid_request` for what contradicts itself, `not_supported` for what this platform does not have
 */
export function toCapsuleSpec(body: CreateSandboxInput, defaultTimeoutSec: number): CapsuleSpec {
  const { network } = body
  refuseUnsupported(body, ['volumeMounts', 'mcp', 'iam'])
  refuseUnsupported(network ?? {}, ['egressProxy', 'maskRequestHost', 'httpsPorts'], 'network.')
  refuseContradictions(body)
  if (body.autoPauseMemory === false) {
    throw new AppError('not_supported', 'A pause always keeps memory here: autoPauseMemory cannot be false.')
  }
  const egress = egressOf(network ?? {}, body.allow_internet_access)
  return {
    ...createCapsuleSchema.parse({}),
    template: templateNameOf(body.templateID),
    labels: body.metadata ?? {},
    envs: body.envVars ?? {},
    fallback: sandboxDefaults,
    auto_resume: body.autoResume?.enabled ?? false,
    port_access: network?.allowPublicTraffic === false ? 'private' : 'public',
    ...(egress === undefined ? {} : { egress }),
    agentAccess: true,
    life: { lifetimeSec: body.timeout ?? defaultTimeoutSec, onEnd: body.autoPause === true ? 'pause' : 'kill' },
  }
}

function refuseContradictions({ secure, network, autoPause, autoPauseMemory, autoResume }: CreateSandboxInput): void {
  if (network?.allowPublicTraffic === false && secure === false) {
    throw new AppError('invalid_request', 'network.allowPublicTraffic can be false only where secure is not.')
  }
  if (autoPauseMemory === false && (autoPause !== true || autoResume?.enabled === true)) {
    throw new AppError('invalid_request', 'autoPauseMemory can be false only with autoPause and without autoResume.')
  }
}
