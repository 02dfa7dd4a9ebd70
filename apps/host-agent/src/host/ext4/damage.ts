import { AppError } from '@wrenn/base'

/** The error for a disk whose structures contradict themselves. `what` continues "The disk …: ". */
export function damaged(path: string, what: string): AppError {
  return new AppError('snapshot_damaged', `The file system of ${path} is damaged: ${what}.`, { details: { path } })
}
