import { AppError } from '@wrenn/base'
import { type CapsuleCommand, type CapsuleState, nextState } from '@wrenn/protocol'
import { findAnyCapsule, findCapsule } from '../../store/capsules.js'
import type { Db } from '../../store/database.js'
import type { CapsuleRow } from '../../store/schema.js'

/** A team's capsule. @throws AppError `capsule_not_found` */
export async function needCapsule(db: Db, teamId: string, id: string): Promise<CapsuleRow> {
  const row = await findCapsule(db, teamId, id)
  if (row === undefined) throw noCapsule(id)
  return row
}

/** Of any team, for admins of the platform. @throws AppError `capsule_not_found` */
export async function needAnyCapsule(db: Db, id: string): Promise<CapsuleRow> {
  const row = await findAnyCapsule(db, id)
  if (row === undefined) throw noCapsule(id)
  return row
}

export function noCapsule(id: string): AppError {
  return new AppError('capsule_not_found', `There is no capsule ${id}.`)
}

/** What people may ask of a capsule, in the words of the API. */
export const requests = [
  'pause',
  'resume',
  'hibernate',
  'fork',
  'checkpoint',
  'rollback',
  'snapshot',
  'destroy',
] as const
/** A command that somebody asked for, unlike those that tell what has happened. */
export type Request = Extract<CapsuleCommand, (typeof requests)[number]>

/** By the lifecycle table. */
export function isLegal(state: CapsuleState, request: Request): boolean {
  return nextState(state, request) !== undefined
}

/** @throws AppError `invalid_state`, naming the state and what is legal there */
export function needLegal(row: CapsuleRow, request: Request): void {
  if (!isLegal(row.state, request)) throw illegal(row, request)
}

/** The refusal of what is not legal in the state of a capsule. */
export function illegal({ state }: CapsuleRow, request: string): AppError {
  const legal = requests.filter((other) => isLegal(state, other))
  const message = `The capsule is ${state}; ${request} is not possible there. Possible: ${legal.join(', ')}.`
  return new AppError('invalid_state', message, { details: { state, legal } })
}

/** Whether an ended capsule is worth asking its host; one that never ran, or that the host lost, is not, unless the object store has it. */
export function mayHaveSavedState({ desired_state, observed_state, stored_state }: CapsuleRow): boolean {
  return desired_state !== 'stopped' && (observed_state !== 'absent' || stored_state !== null)
}
