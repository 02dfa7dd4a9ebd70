import { whenAnswered } from '../../lib/early-answers.js'

/** Beyond it the page says that it is on its way. */
const PATIENCE_MS = 300

/** With the first answers there, the page is painted once, and with what people have come for. */
export const load = (): Promise<void> => whenAnswered(globalThis.wrennEarlyAnswers, PATIENCE_MS)
