import { type CapsuleState, nextState } from '@wrenn/sdk'
import type { Shell, Workspace } from '../context.js'
import { counted } from '../format.js'

/** What moves a capsule from a list or its own page. */
export type Move = 'pause' | 'resume' | 'destroy'

const words: Readonly<Record<Move, { readonly doing: string; readonly done: string }>> = {
  pause: { doing: 'Pausing', done: 'paused' },
  resume: { doing: 'Resuming', done: 'running' },
  destroy: { doing: 'Destroying', done: 'destroyed' },
}

/** Whether the platform would do it, by its own table of states. */
export function isPossible(move: Move, state: CapsuleState): boolean {
  return nextState(state, move) !== undefined && state !== 'stopping'
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
  const outcomes = await Promise.all(
    able.map(async ({ id, name, shownState }) => {
      const expected = nextState(shownState, move) ?? shownState
      try {
        await capsules.expecting(id, expected, async () => {
          const capsule = await wrenn.capsules.get(id)
          if (move === 'destroy') await capsule.destroy()
          else capsules.put(await capsule[move]())
        })
        return true
      } catch (error) {
        toasts.fail(`${words[move].doing} ${name ?? id}`, error)
        return false
      }
    }),
  )
  const done = outcomes.filter(Boolean).length
  const [only] = able
  if (done === 1 && only !== undefined && able.length === 1)
    toasts.tell(`${only.name ?? only.id} is ${words[move].done}`)
  else if (done > 0) toasts.tell(`${counted(done, 'capsule')} ${words[move].done}`)
  return done === able.length
}
