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

/**
 * What the early answer to this path says; it stays for who asks.
 * @throws TypeError where it is no answer, or none was asked for
 */
export async function peekAtAnswer<Said>(answers: EarlyAnswers | undefined, path: string): Promise<Said> {
  const [, early] = [...(answers ?? [])].find(([url]) => new URL(url).pathname === path) ?? []
  if (early === undefined) throw new TypeError(`${path} was not asked for.`)
  const answer = await early
  if (!answer.ok) throw new TypeError(`${path}: ${answer.status}`)
  const said: Said = await answer.clone().json()
  return said
}

/** Beyond it a page says that it is on its way. */
const PATIENCE_MS = 300

/** What every page of the dashboard is painted with. */
export const shellPaths: readonly string[] = ['/v1/me', '/v1/teams']
/** What the list of capsules is painted with. */
export const listPaths: readonly string[] = ['/v1/capsules']

/**
 * When the early answers of these paths are there, or have failed, or it takes too long.
 * @param answers those that nobody has taken yet
 */
export async function whenAnswered(
  answers: EarlyAnswers | undefined,
  paths: readonly string[],
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const wanted = [...(answers ?? [])].flatMap(([url, answer]) =>
    paths.includes(new URL(url).pathname) ? [answer] : [],
  )
  if (wanted.length === 0) return
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, patienceMs)
  })
  await Promise.race([Promise.allSettled(wanted), late])
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
