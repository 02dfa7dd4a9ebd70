import { AppError } from '@wrenn/base'
import type { Capsule, Checkpoint } from '@wrenn/protocol'
import type { LifecycleDeps, RequestOptions } from './lifecycle.js'

export interface CreateCheckpointOptions extends RequestOptions {
  /** @default checkpoint-1, -2, … */
  readonly name?: string | undefined
  /** Made by the platform for itself: not listed. @default false */
  readonly hidden?: boolean
}

/** Points in time of one capsule; `ref` is a checkpoint's id or name. */
export class Checkpoints {
  readonly deps: LifecycleDeps

  constructor(deps: LifecycleDeps) {
    this.deps = deps
  }

  /** @throws AppError `capsule_not_found`, `invalid_state`, `conflict`, `timeout` when it takes longer than `waitMs` */
  async create(teamId: string, capsuleId: string, options: CreateCheckpointOptions): Promise<Checkpoint> {
    throw new AppError('internal', `checkpoint of ${capsuleId} by ${teamId} ${options.waitMs}`)
  }

  /** @throws AppError `capsule_not_found`, `checkpoint_not_found`, `invalid_state`, or why it failed */
  async rollback(teamId: string, capsuleId: string, ref: string, options: RequestOptions): Promise<Capsule> {
    throw new AppError('internal', `rollback of ${capsuleId} by ${teamId} ${ref} ${options.waitMs}`)
  }

  /** @throws AppError `capsule_not_found`, `checkpoint_not_found`, `in_use` */
  async remove(teamId: string, capsuleId: string, ref: string, options: RequestOptions): Promise<void> {
    throw new AppError('internal', `delete of ${capsuleId} by ${teamId} ${ref} ${options.waitMs}`)
  }
}
