import type { CapsuleCommand, CapsuleState } from '@wrenn/protocol'
import { audited } from '../../store/audit.js'
import { type CapsulePatch, transition } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow } from '../../store/schema.js'

interface HostEvent {
  readonly command: CapsuleCommand
  readonly patch: CapsulePatch
  /** As the audit trail says it. */
  readonly action: string
  /** Whether somebody would rather it had not happened. */
  readonly isBad: boolean
  readonly cause?: string
}

/**
 * Moves a capsule that nobody asked to move, because its host says, or no longer says, where it is.
 * @returns the new row, or `undefined` as `transition`
 */
export async function followHost(db: Db, row: CapsuleRow, event: HostEvent): Promise<CapsuleRow | undefined> {
  const { id, team_id: teamId } = row
  return await audited(
    db,
    (tx) => transition(tx, row, event.command, event.patch),
    ({ state }) => ({
      teamId,
      actor: undefined,
      action: event.action,
      resource: { type: 'capsule', id },
      outcome: event.isBad ? 'failure' : 'success',
      details: { was: row.state, state, cause: event.cause },
    }),
  )
}

/** States in which a capsule is at its host; when that is silent, nobody knows. */
const shownMissing: ReadonlySet<CapsuleState> = new Set(['running', 'pausing', 'paused', 'resuming'])

/** The host of a capsule is silent. */
export async function markMissing(db: Db, row: CapsuleRow): Promise<void> {
  // One that is fetched is in the store until its host has said that it has it.
  if (!shownMissing.has(row.state) || row.stored_state !== null) return
  const patch = { observed_state: 'silent', observed_at: new Date() } as const
  await followHost(db, row, { command: 'lost', patch, action: 'capsule.missing', isBad: true })
}
