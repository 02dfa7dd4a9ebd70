import { AppError } from '@wrenn/base'
import { isAsleep, type ResumeInput } from '@wrenn/protocol'
import type { Services } from '../http/context.js'
import type { Actor, CapsuleRow } from '../store/schema.js'
import { needLive } from './sandbox.js'

interface ConnectOptions {
  /** How long it is to live from now at least. */
  readonly lifetimeSec: number
  readonly from: ResumeInput['from']
  readonly waitMs: number
  readonly actor: Actor
}

interface Connected {
  readonly row: CapsuleRow
  readonly wasAsleep: boolean
}

/**
 * A sandbox that runs, woken where it slept, and lives on; its guest agent is open to clients, whichever door it was made through. One whose time is over in this moment is woken again, or is gone.
 * @throws AppError `capsule_not_found`, `timeout`, `invalid_state`, or why it did not start or wake
 */
export async function connected(
  { capsules, lifecycle, lifetimes }: Pick<Services, 'capsules' | 'lifecycle' | 'lifetimes'>,
  { id, team_id: teamId }: Pick<CapsuleRow, 'id' | 'team_id'>,
  { lifetimeSec, from, waitMs, actor }: ConnectOptions,
): Promise<Connected> {
  const deadline = performance.now() + waitMs
  for (let wasAsleep = false; ; ) {
    const row = needLive(await capsules.get(teamId, id))
    if (isAsleep(row.state)) {
      wasAsleep = true
      const leftMs = Math.max(0, deadline - performance.now())
      await lifecycle.wake(row, { waitMs: leftMs, actor, lifetimeSec, from }).catch(goneOr)
    } else if (!(await runs())) continue
    // Where somebody else woke it, it got another life than was asked for here.
    const now = needLive(await lifetimes.extend(teamId, id, lifetimeSec, actor))
    if (!isAsleep(now.state)) return { row: await capsules.withAgentAccess(now, actor), wasAsleep }
  }

  /** Whether it runs; one that starts is waited for. */
  async function runs(): Promise<boolean> {
    try {
      await capsules.running(teamId, id)
      return true
    } catch (error) {
      if (AppError.is(error, 'invalid_state') && isAsleep(needLive(await capsules.get(teamId, id)).state)) return false
      return await goneOr(error)
    }
  }

  /** It may have ended meanwhile, which says more than that it does not run. @throws always */
  async function goneOr(error: unknown): Promise<never> {
    if (AppError.is(error, 'invalid_state', 'guest_died')) needLive(await capsules.get(teamId, id))
    throw error
  }
}
