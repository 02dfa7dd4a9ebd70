import { AppError } from '@wrenn/base'
import type { SignUpRule } from '../../config.js'
import type { Db } from '../../store/database.js'
import { countActive } from '../../store/users.js'

/** @throws AppError `forbidden` where nobody may sign up, or not with such an address */
export async function refuseSignUp(db: Db, rule: SignUpRule, email: string): Promise<void> {
  if (rule === 'open') return
  if (rule === 'closed') {
    if ((await countActive(db)).all > 0) throw signUpClosed()
    return
  }
  const domain = email.slice(email.lastIndexOf('@') + 1)
  if (!rule.includes(domain)) throw new AppError('forbidden', 'Nobody can sign up here with such an address.')
}

export function signUpClosed(): AppError {
  return new AppError('forbidden', 'Sign-up is closed; an admin of this platform can make you an account.')
}
