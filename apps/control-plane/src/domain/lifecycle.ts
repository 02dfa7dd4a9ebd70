import { AppError } from '@wrenn/base'
import type { Capsule, PauseReason, UpdateCapsuleInput } from '@wrenn/protocol'
import type { Host } from '../host/host.js'
import type { Db } from '../store/database.js'
import type { CapsuleRow } from '../store/schema.js'
import type { Operations } from './operations.js'

export interface LifecycleDeps {
  readonly db: Db
  readonly host: Host
  readonly operations: Operations
}

export interface RequestOptions {
  /** How long the answer may wait for the end; the work goes on afterwards. */
  readonly waitMs: number
  readonly idempotencyKey?: string | undefined
}

export interface PauseOptions extends RequestOptions {
  /** @default 'request' */
  readonly reason?: PauseReason
  /** Looked at in the moment of the decision; when it says no, nothing happens. */
  readonly onlyIf?: (row: CapsuleRow) => boolean
}

/** Moves capsules between running and paused; every move is an operation that ends though its caller leaves. */
export class Lifecycle {
  readonly deps: LifecycleDeps

  constructor(deps: LifecycleDeps) {
    this.deps = deps
  }

  /** A pause that is under way is joined. @throws AppError `capsule_not_found`, `invalid_state`, or why it failed */
  async pause(teamId: string, id: string, options: PauseOptions): Promise<Capsule> {
    throw new AppError('internal', `pause of ${id} by ${teamId} ${options.waitMs}`)
  }

  /** A resume that is under way is joined. @throws AppError `capsule_not_found`, `invalid_state`, `pool_exhausted`, or why it failed */
  async resume(teamId: string, id: string, options: RequestOptions): Promise<Capsule> {
    throw new AppError('internal', `resume of ${id} by ${teamId} ${options.waitMs}`)
  }

  /** Resumes a capsule that is asleep (also one just being paused) and waits until it runs. @throws AppError `timeout` and those of `resume` */
  async wake(row: CapsuleRow, waitMs: number): Promise<CapsuleRow> {
    throw new AppError('internal', `wake of ${row.id} ${waitMs}`)
  }

  /** Name, labels, timeout, auto-resume. @throws AppError `capsule_not_found`, `invalid_state` */
  async update(teamId: string, id: string, input: UpdateCapsuleInput): Promise<CapsuleRow> {
    throw new AppError('internal', `update of ${id} by ${teamId} ${Object.keys(input).join()}`)
  }
}
