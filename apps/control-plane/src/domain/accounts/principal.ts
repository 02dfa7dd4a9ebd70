import { AppError } from '@wrenn/base'
import { type Permission, type Role, type Scope, scopesFor } from '@wrenn/protocol'

interface Holder {
  /** Of the key, or of the person; for logs and records. */
  readonly id: string
  /** For people. */
  readonly name: string
  readonly teamId: string
  /** Of a person: those whose every permission they have. */
  readonly scopes: readonly Scope[]
  readonly permissions: ReadonlySet<Permission>
  /** Afterwards it may do nothing. Of a person's access token; the session may go on with another. */
  readonly expiresAt: Date | undefined
}

/** A key, and what its scopes allow. */
export interface KeyPrincipal extends Holder {
  readonly kind: 'key'
}

/** A person who has logged in, and what their role in the session's team allows. */
export interface UserPrincipal extends Holder {
  readonly kind: 'user'
  readonly email: string
  readonly sessionId: string
  readonly role: Role
}

/** Who makes a request, for which team, and what they may do there. */
export type Principal = KeyPrincipal | UserPrincipal

/** @throws AppError `forbidden`, naming what would do */
export function need(principal: Principal, permission: Permission): void {
  if (principal.permissions.has(permission)) return
  if (principal.kind === 'user') {
    const message = `As ${principal.role} of this team you may not do that.`
    throw new AppError('forbidden', message, { details: { permission, role: principal.role } })
  }
  const enough = scopesFor(permission)
  if (enough.length === 0) throw new AppError('forbidden', 'This is for people who have logged in, not for keys.')
  const scope = enough.length === 1 ? `the scope ${enough[0]}` : `one of the scopes ${enough.join(', ')}`
  throw new AppError('forbidden', `This key may not do that: it needs ${scope}.`, {
    details: { permission, scopes: enough },
  })
}
