import { AppError } from '@wrenn/base'
import { type Permission, type Scope, scopesFor } from '@wrenn/protocol'

/** Who makes a request, for which team, and what it may do there. */
export interface Principal {
  readonly kind: 'key'
  /** Of the key; for logs and records. */
  readonly id: string
  /** For people. */
  readonly name: string
  readonly teamId: string
  readonly scopes: readonly Scope[]
  /** All that the scopes allow together. */
  readonly permissions: ReadonlySet<Permission>
  /** Afterwards it may do nothing. */
  readonly expiresAt: Date | undefined
}

/** @throws AppError `forbidden`, naming what would do */
export function need({ permissions }: Principal, permission: Permission): void {
  if (permissions.has(permission)) return
  const enough = scopesFor(permission)
  const scope = enough.length === 1 ? `the scope ${enough[0]}` : `one of the scopes ${enough.join(', ')}`
  throw new AppError('forbidden', `This key may not do that: it needs ${scope}.`, {
    details: { permission, scopes: enough },
  })
}
