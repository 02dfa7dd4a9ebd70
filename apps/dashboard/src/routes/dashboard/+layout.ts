import { shellPaths, whenAnswered } from '../../lib/early-answers.js'

/** With the first answers there, a page is painted once, and with what people have come for. */
export const load = (): Promise<void> => whenAnswered(globalThis.wrennEarlyAnswers, shellPaths)
