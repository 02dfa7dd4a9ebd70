import { AppError } from '@wrenn/base'

export interface SpacePool {
  readonly path: string
  usage(): Promise<{ readonly totalBytes: number; readonly freeBytes: number }>
}

export interface SpaceRequest {
  /** What the room is for, as the subject of a sentence. @default This */
  readonly purpose?: string
  /** Kept free on top. @default 1 GiB, or 2 % of a pool smaller than 50 GiB */
  readonly reserveBytes?: number
  /** What deleting checkpoints, snapshots and paused capsules would give back, where known. */
  readonly freeableBytes?: number
}

/**
 * Refuses work that would fill the pool, before it starts.
 * @throws AppError `disk_full` with how much is free, needed, and what would free it (`details.{freeBytes, neededBytes}`).
 */
export async function requireSpace(pool: SpacePool, neededBytes: number, request: SpaceRequest = {}): Promise<void> {
  const { totalBytes, freeBytes } = await pool.usage()
  const reserveBytes = request.reserveBytes ?? Math.min(2 ** 30, Math.floor(totalBytes * 0.02))
  if (freeBytes - reserveBytes >= neededBytes) return
  throw new AppError('disk_full', spaceMessage(pool.path, { freeBytes, reserveBytes, neededBytes }, request), {
    details: { freeBytes, neededBytes, reserveBytes },
  })
}

interface SpaceFigures {
  readonly freeBytes: number
  readonly reserveBytes: number
  readonly neededBytes: number
}

function spaceMessage(path: string, figures: SpaceFigures, request: SpaceRequest): string {
  const needs = `${request.purpose ?? 'This'} needs ${mib(figures.neededBytes)} of the pool ${path}`
  const has = `${mib(figures.freeBytes)} are free, of which ${mib(figures.reserveBytes)} are kept in reserve`
  const freeable = request.freeableBytes === undefined ? '' : ` (up to ${mib(request.freeableBytes)})`
  return `${needs}; ${has}. Delete checkpoints, snapshots or paused capsules${freeable}, or give the pool more disk.`
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`
}
