import { access } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'

/** Whether something is at the path; a link counts by its target. @throws what else keeps that from being known, as a mount that nobody serves */
export async function isThere(path: string): Promise<boolean> {
  try {
    await access(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}
