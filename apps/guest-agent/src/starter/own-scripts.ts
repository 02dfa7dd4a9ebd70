import { starterLayout } from '@wrenn/base'
import type { StarterState } from './process-script.js'
import { type Label, Script } from './script.js'

/** System calls, x86-64. */
const CLOSE_RANGE = 436
const OPENAT = 257
const PRCTL = 157
const MKNODAT = 259
const MADVISE = 28

const AT_FDCWD = -100
const O_WRONLY_CLOEXEC = 0o2000001
const CLOSE_RANGE_CLOEXEC = 4
const PR_SET_DUMPABLE = 4
const MADV_DONTNEED = 4
const OWN_PIPE = 0o010600
/** The starter's own: the directory of the pipes, answers, signals. */
const PIPES_FD = 3
const FIRST_FREE_FD = 6
const FIRST_INHERITED_FD = 3

const { scriptAddress, maxScriptBytes, headerBytes } = starterLayout
/** What every script may fill, in whole pages, stays. */
const KEPT_BYTES = 0x10000

interface OwnScript<T extends unknown[], R> {
  readonly bytes: Buffer
  readonly answerBytes: number
  read(answer: Buffer, ...more: T): R
}

/**
 * What the starter does first: nothing that it has open goes to other programs, nobody may look into its memory, and its score is at
 * hand. `read` takes what its `oom_score_adj` is. @throws Error when the kernel does not know how
 */
export function setUpScript(): OwnScript<[ownScore: string], StarterState> {
  const script = new Script({ results: 2, chosen: [] })
  const score = script.text('/proc/self/oom_score_adj')
  const over: Label = { address: 0 }
  script.begin('starter')
  const closing = [FIRST_INHERITED_FD, -1, CLOSE_RANGE_CLOEXEC]
  script.call({ number: CLOSE_RANGE, args: closing, result: script.result(0), orElse: over })
  script.call({ number: PRCTL, args: [PR_SET_DUMPABLE, 0], tolerated: 'anything' })
  const opening = [AT_FDCWD, score, O_WRONLY_CLOEXEC, 0]
  script.call({ number: OPENAT, args: opening, result: script.result(1), tolerated: 'anything' })
  script.place(over)
  script.answer()
  const read = (answer: Buffer, own: string): StarterState => {
    if (answer.readInt32LE(headerBytes) !== 0) throw new Error('the kernel has no close_range(2) with a flag')
    const fd = answer.readInt32LE(headerBytes + 8)
    return {
      pipesFd: PIPES_FD,
      score: fd < 0 ? undefined : { fd, own },
      firstFreeFd: Math.max(FIRST_FREE_FD, fd + 1),
    }
  }
  return { bytes: script.finish(), answerBytes: script.answerBytes, read }
}

/** Makes pipes that only root may open; `read` tells whether all of them are there. */
export function pipeScript(names: readonly string[]): OwnScript<[], boolean> {
  const script = new Script({ results: 0, chosen: [] })
  const texts = names.map((name) => script.text(name))
  const over: Label = { address: 0 }
  script.begin('starter')
  for (const text of texts) script.call({ number: MKNODAT, args: [PIPES_FD, text, OWN_PIPE, 0], orElse: over })
  script.place(over)
  script.answer()
  return { bytes: script.finish(), answerBytes: script.answerBytes, read: (answer) => answer.readUInt32LE(24) === 0 }
}

/** Gives back the memory that a large script took. */
export function memoryScript(): OwnScript<[], void> {
  const script = new Script({ results: 0, chosen: [] })
  const args = [scriptAddress + KEPT_BYTES, maxScriptBytes - KEPT_BYTES, MADV_DONTNEED]
  script.begin('starter')
  script.call({ number: MADVISE, args, tolerated: 'anything' })
  script.answer()
  return { bytes: script.finish(), answerBytes: script.answerBytes, read: () => {} }
}
