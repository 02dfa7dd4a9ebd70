import { createHash } from 'node:crypto'
import { AppError } from '@wrenn/base'
import type { EventPlace } from '../../store/events.js'

const MAX_XID = 2n ** 64n

/** A place, when its event was, and in the events of whom. */
export interface Cursor extends EventPlace {
  readonly atMs: number
  /** By {@link teamMark}; `undefined` in cursors of before there were any. */
  readonly team: string | undefined
}

/** What a cursor knows its team by: places of one team say nothing of what another has missed. */
export function teamMark(teamId: string): string {
  return createHash('sha256').update(teamId).digest('hex').slice(0, 12)
}

/** What clients keep of a place; nothing in it is theirs to read. */
export function encodeCursor({ xid, id, atMs, team }: Cursor & { readonly team: string }): string {
  return `${xid}-${id}-${atMs}-${team}`
}

/** @throws AppError `invalid_request` */
export function decodeCursor(text: string): Cursor {
  const parts = /^(\d{1,20})-(\d{1,15})-(\d{1,14})(?:-([0-9a-f]{12}))?$/.exec(text) ?? []
  const [, xid = '', id = '', at = '', team] = parts
  if (xid === '' || BigInt(xid) >= MAX_XID) {
    throw new AppError('invalid_request', 'after: must be the id of an event.')
  }
  return { xid, id: Number(id), atMs: Number(at), team }
}
