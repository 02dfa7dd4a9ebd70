import { AppError, capsuleIds } from '@wrenn/base'
import { type CapsuleState, capsuleStates, wireStatus } from '@wrenn/protocol'
import type { CapsuleRow } from '../store/schema.js'
import { networkOf } from './network.js'
import { CLIENT_ID, ENVD_VERSION, endText } from './wire.js'

/** All that a sandbox can be; one that has ended is not there any more. */
export const sandboxStates = ['running', 'paused'] as const
export type SandboxState = (typeof sandboxStates)[number]

/** What a capsule is as a sandbox; `undefined`: it is gone. */
export function sandboxState(state: CapsuleState): SandboxState | undefined {
  if (state === 'stopping') return undefined
  const status = wireStatus(state)
  if (status === 'stopped' || status === 'error') return undefined
  return status === 'paused' || status === 'hibernated' ? 'paused' : 'running'
}

/** The states that show as one of these. */
export function statesShownAs(wanted: readonly SandboxState[]): readonly CapsuleState[] {
  return capsuleStates.filter((state) => {
    const shown = sandboxState(state)
    return shown !== undefined && wanted.includes(shown)
  })
}

/** The capsule's id in what a client calls one: older ones add the client id. @throws AppError `capsule_not_found` */
export function capsuleIdOf(sandboxId: string): string {
  const id = sandboxId.replace(/^(cl-[0-9a-z]+)-[0-9a-f]{8}$/, '$1')
  if (!capsuleIds.is(id)) throw notFound(sandboxId.slice(0, 100))
  return id
}

/** @throws AppError `capsule_not_found` for one that has ended */
export function needLive(row: CapsuleRow): CapsuleRow {
  if (sandboxState(row.state) !== undefined) return row
  throw notFound(row.id, row.exit === null ? '' : ` It has ended: ${row.exit.message}`)
}

/** @throws AppError `capsule_not_found` for one that is destroyed, or is being; one whose guest has ended still has its files */
export function needThere(row: CapsuleRow): CapsuleRow {
  if (row.state !== 'stopping' && row.state !== 'stopped') return row
  throw notFound(row.id)
}

function notFound(id: string, because = ''): AppError {
  return new AppError('capsule_not_found', `Sandbox ${id} was not found.${because}`)
}

/** The answer to a create or connect: how the sandbox is reached. */
export function toSandbox(row: CapsuleRow, domain: string) {
  return {
    sandboxID: row.id,
    templateID: row.template,
    clientID: CLIENT_ID,
    envdVersion: ENVD_VERSION,
    domain,
    ...(row.access_token === null ? {} : { envdAccessToken: row.access_token }),
    ...(row.port_token === null ? {} : { trafficAccessToken: row.port_token }),
  }
}

/** An entry of a list. */
export function toListedSandbox(row: CapsuleRow) {
  return {
    sandboxID: row.id,
    templateID: row.template,
    clientID: CLIENT_ID,
    alias: row.template,
    startedAt: (row.started_at ?? row.created_at).toISOString(),
    endAt: endText(row.ends_at),
    state: sandboxState(row.state) ?? 'running',
    cpuCount: row.vcpus,
    memoryMB: row.memory_mib,
    diskSizeMB: row.disk_size_mib,
    envdVersion: ENVD_VERSION,
    metadata: row.labels,
    volumeMounts: [],
  }
}

/** All that is told of one sandbox; who may only look gets no token. */
export function toSandboxInfo(row: CapsuleRow, domain: string) {
  return {
    ...toListedSandbox(row),
    domain,
    allowInternetAccess: row.egress?.internet ?? true,
    network: {
      allowPublicTraffic: row.port_token === null,
      ...(row.egress === null ? {} : networkOf(row.egress)),
    },
    lifecycle: { onTimeout: row.on_end ?? 'pause', autoResume: row.auto_resume },
  }
}
