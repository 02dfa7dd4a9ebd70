import { listPaths, whenAnswered } from '../../../lib/early-answers.js'

/** The list is painted once, with its rows. */
export const load = (): Promise<void> => whenAnswered(globalThis.wrennEarlyAnswers, listPaths)
