/** Answers to what the shell has asked for before any of this was there, by their URL. */
export type EarlyAnswers = Map<string, Promise<Response>>

declare global {
  /** Of `app.html`; absent where the address is not one of the dashboard. */
  var wrennEarlyAnswers: EarlyAnswers | undefined
}

/** Asks as `ask` does, and gives each early answer once: whoever asks again wants to know what it is by then. */
export function withEarlyAnswers(answers: EarlyAnswers | undefined, ask: typeof fetch): typeof fetch {
  return async (input, init) => {
    const url = String(input)
    const answer = (init?.method ?? 'GET') === 'GET' ? answers?.get(url) : undefined
    if (answer === undefined) return await ask(input, init)
    answers?.delete(url)
    return await unlessAborted(answer, init?.signal ?? undefined)
  }
}

/** When all of them are there, or have failed, or it takes too long. */
export async function whenAnswered(answers: EarlyAnswers | undefined, patienceMs: number): Promise<void> {
  if (answers === undefined || answers.size === 0) return
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, patienceMs)
  })
  await Promise.race([Promise.allSettled(answers.values()), late])
  clearTimeout(timer)
}

async function unlessAborted(answer: Promise<Response>, signal: AbortSignal | undefined): Promise<Response> {
  if (signal === undefined) return await answer
  signal.throwIfAborted()
  return await new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    answer.then(resolve, reject)
  })
}
