import { AppError, pathBytes } from '@wrenn/base'

/** The names of an absolute path (in the form of `pathText`), as latin1; none for the root. @throws AppError `invalid_request` */
export function pathNames(path: string | undefined): readonly string[] {
  const text = pathBytes(path ?? '').toString('latin1')
  if (text === '') return []
  const names = text.split('/').filter((name) => name !== '' && name !== '.')
  if (!text.startsWith('/') || names.includes('..')) {
    throw new AppError('invalid_request', 'path must be absolute and without "..".')
  }
  return names
}
