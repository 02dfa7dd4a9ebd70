import { AppError, isErrno } from '@wrenn/base'
import type { ErrorCode } from '@wrenn/protocol'

const codeOfErrno: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  ENOENT: ['file_not_found', 'does not exist'],
  ENOTDIR: ['not_a_directory', 'has a part that is not a directory'],
  EISDIR: ['is_a_directory', 'is a directory'],
  EACCES: ['permission_denied', 'is not accessible for the user'],
  EPERM: ['permission_denied', 'may not be changed'],
  EROFS: ['permission_denied', 'is on a read-only file system'],
  EEXIST: ['conflict', 'exists already'],
  ENOTEMPTY: ['conflict', 'is a directory that is not empty'],
  EBUSY: ['conflict', 'is in use'],
  ETXTBSY: ['conflict', 'is a program that is running'],
  EXDEV: ['invalid_request', 'is on another file system'],
  EINVAL: ['invalid_request', 'is not valid here'],
  ERANGE: ['invalid_request', 'does not take this value'],
  EOPNOTSUPP: ['invalid_request', 'does not allow this'],
  ENODEV: ['invalid_request', 'has no device behind it'],
  ENXIO: ['invalid_request', 'has no device behind it'],
  ESPIPE: ['invalid_request', 'takes only short values'],
  ELOOP: ['invalid_request', 'has too many symbolic links'],
  ENAMETOOLONG: ['invalid_request', 'is too long'],
  ERR_INVALID_ARG_VALUE: ['invalid_request', 'is not a valid path'],
  ENOSPC: ['disk_full', 'cannot be written: the disk is full'],
  EDQUOT: ['disk_full', 'cannot be written: the quota is used up'],
  EFBIG: ['disk_full', 'would be too large for the file system'],
}

/** A file system's refusal as the error clients know; anything else comes back as it is. */
export function fileError(thrown: unknown, path: string): unknown {
  if (!isErrno(thrown, ...Object.keys(codeOfErrno))) return thrown
  const [code, text] = codeOfErrno[thrown.code ?? ''] ?? ['internal', 'failed']
  return new AppError(code, `path '${path}' ${text}`, { cause: thrown })
}

/** Runs a file operation on `path`, translating its errors. */
export function onPath<T>(path: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw fileError(error, path)
  }
}
