import { AppError } from '@wrenn/base'

/** The names of an absolute path, as latin1; none for the root. @throws AppError `invalid_request` */
export function pathNames(path: string | Buffer | undefined): readonly string[] {
  const text = Buffer.isBuffer(path) ? path.toString('latin1') : Buffer.from(path ?? '', 'utf8').toString('latin1')
  if (text === '') return []
  const names = text.split('/').filter((name) => name !== '' && name !== '.')
  if (!text.startsWith('/') || names.includes('..')) {
    throw new AppError('invalid_request', 'path must be absolute and without "..".')
  }
  return names
}
