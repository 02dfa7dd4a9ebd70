import { AppError } from '@wrenn/base'
import { isMailAddress } from '@wrenn/protocol'

/** @throws AppError `invalid_request` */
export function requireMailAddress(text: string): string {
  if (!isMailAddress(text))
    throw new AppError('invalid_request', 'email must be one address, such as name@example.org.')
  return text
}
