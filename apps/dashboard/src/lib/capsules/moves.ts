import { type CapsuleState, nextState } from '@wrenn/sdk'
import type { Shell, Workspace } from '../context.js'
import { counted } from '../format.js'
import type { Session } from '../session.svelte.js'

/** What moves a capsule from a list or its own page. */
export type Move = 'pause' | 'hibernate' | 'resume' | 'destroy'

const words: Readonly<Record<Move, { readonly doing: string; readonly done: string }>> = {
  pause: { doing: 'Pausing', done: 'paused' },
  hibernate: { doing: 'Hibernating', done: 'hibernated' },
  resume: { doing: 'Resuming', done: 'running' },
  destroy: { doing: 'Destroying', done: 'destroyed' },
}

/** Sending a state to an object store, or fetching it from there, takes as long as it is large. */
const TRANSFER_MS = 60 * 60_000

/** Whether the platform would do it, by its own table of states. */
export function isPossible(move: Move, state: CapsuleState): boolean {
  return nextState(state, move) !== undefined && state !== 'stopping'
}

/** Those that this platform has at all, in the order in which they are offered. */
export function movesOf(session: Pick<Session, 'has'>): readonly Move[] {
  return session.has('hibernation') ? ['pause', 'hibernate', 'resume', 'destroy'] : ['pause', 'resume', 'destroy']
}

interface Moved {
  readonly id: string
  readonly name: string | undefined
  readonly shownState: CapsuleState
}

/**
 * Moves capsules and tells how it went. What is asked for shows at once, and is taken back where it is refused.
 * @returns whether all went well
 */
export async function moveCapsules(
  { wrenn, toasts }: Shell,
  { capsules }: Pick<Workspace, 'capsules'>,
  move: Move,
  chosen: readonly Moved[],
): Promise<boolean> {
  const able = chosen.filter(({ shownState }) => isPossible(move, shownState))
  // It looks as if nothing happened: a capsule is paused until all of it is stored.
  if (move === 'hibernate') toasts.tell(`Storing ${namesOf(able)}: until that is done, a resume ends it`)
  const outcomes = await Promise.all(
    able.map(async ({ id, name, shownState }) => {
      const expected = nextState(shownState, move) ?? shownState
      try {
        await capsules.expecting(id, expected, async () => {
          const capsule = await wrenn.capsules.get(id)
          if (move === 'destroy') await capsule.destroy()
          else capsules.put(await capsule[move]({ timeoutMs: TRANSFER_MS }))
        })
        return true
      } catch (error) {
        toasts.fail(`${words[move].doing} ${name ?? id}`, error)
        return false
      }
    }),
  )
  const done = outcomes.filter(Boolean).length
  if (done === 1 && able.length === 1) toasts.tell(`${namesOf(able)} is ${words[move].done}`)
  else if (done > 0) toasts.tell(`${counted(done, 'capsule')} ${words[move].done}`)
  return done === able.length
}

function namesOf(capsules: readonly Moved[]): string {
  const [only] = capsules
  return only !== undefined && capsules.length === 1 ? (only.name ?? only.id) : counted(capsules.length, 'capsule')
}
