import { AppError } from '@wrenn/base'

/** Position of a page, opaque to clients. */
export function encodeCursor(seq: number): string {
  return Buffer.from(`1:${seq}`).toString('base64url')
}

/** @throws AppError `invalid_request` */
export function decodeCursor(cursor: string): number {
  const seq = /^1:(\d{1,15})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'))?.[1]
  if (seq === undefined) throw new AppError('invalid_request', 'cursor must be the x-next-token header of a page.')
  return Number(seq)
}
