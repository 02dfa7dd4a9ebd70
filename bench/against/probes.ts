import { hotGuestsWait, SHAPE } from '../hot-guests.js'
import type { Platform } from '../platform.js'
import { streamExec } from '../rows/exec.js'
import { median, timed } from '../stats.js'

const COPIES = 10
const STDOUT_MIB = 64
const MIB = 2 ** 20
const WARM_UP = 10
const LISTS = 200
const LISTS_AT_ONCE = 8
const PATIENCE = '?wait_sec=200'

/** What one turn took, in ms, by the name of what was measured. */
type Sample = Readonly<Record<string, number>>

/** Something that is done to both platforms in turn, through what old and new builds have in common: REST and the SDK. */
export interface Probe {
  /** Turns for each of `--iterations`. */
  readonly turnsPerIteration: number
  readonly hotPool: boolean
  /** Prepares a platform; what it gives is called for each turn. */
  readonly begin: (platform: Platform) => Promise<() => Promise<Sample>>
}

/** In one capsule that lives as long as the platform does. */
function inCapsule(turn: (platform: Platform, id: string) => Promise<Sample>, warmUp = 1): Probe['begin'] {
  return async (platform) => {
    const { id } = await platform.create(SHAPE)
    for (let run = 0; run < warmUp; run++) await turn(platform, id)
    return async () => await turn(platform, id)
  }
}

async function exec(platform: Platform, id: string): Promise<Sample> {
  const { ms } = await timed(() => platform.exec(id, '/bin/true'))
  return { 'true, warm': ms }
}

/** From the call to the first byte that the shell prints, which is its prompt. */
async function pty(platform: Platform, id: string): Promise<Sample> {
  const capsule = await platform.wrenn.capsules.get(id)
  const start = performance.now()
  const terminal = await capsule.pty({ user: 'root' })
  let ms = Number.NaN
  for await (const event of terminal) {
    if (event.type !== 'output' || !Number.isNaN(ms)) continue
    ms = performance.now() - start
    await terminal.kill()
  }
  return { 'terminal → prompt': ms }
}

async function stdout(platform: Platform, id: string): Promise<Sample> {
  const command: [string, ...string[]] = ['/usr/bin/head', '-c', String(STDOUT_MIB * MIB), '/dev/zero']
  const { ms, value } = await timed(() => streamExec(platform, id, command))
  if (value !== STDOUT_MIB * MIB) throw new Error(`${value} bytes of output came instead of ${STDOUT_MIB} MiB.`)
  return { [`${STDOUT_MIB} MiB of stdout`]: ms }
}

async function sleep(platform: Platform, id: string): Promise<Sample> {
  const pause = await timed(() => platform.call('POST', `/v1/capsules/${id}/pause${PATIENCE}`))
  const resume = await timed(() => platform.call('POST', `/v1/capsules/${id}/resume${PATIENCE}`))
  const first = await timed(() => platform.exec(id, '/bin/true'))
  return { pause: pause.ms, 'resume right after it': resume.ms, 'resume → first output': resume.ms + first.ms }
}

async function fork(platform: Platform, id: string): Promise<Sample> {
  interface Forked {
    readonly capsules: readonly { readonly id: string }[]
    readonly pause_window_ms: number
  }
  const path = `/v1/capsules/${id}/fork${PATIENCE}`
  const { ms, value } = await timed(async () => {
    const forked = await platform.call<Forked>('POST', path, { count: COPIES })
    await Promise.all(forked.capsules.map((copy) => platform.exec(copy.id, '/bin/true')))
    return forked
  })
  for (const copy of value.capsules) await platform.destroy(copy.id)
  return {
    [`fork of ${COPIES}, per copy → first output`]: ms / COPIES,
    'fork: source stands still': value.pause_window_ms,
  }
}

/** What a request costs whose work is small: above all its way through the check of its key. */
async function list(platform: Platform): Promise<Sample> {
  const alone: number[] = []
  for (let call = 0; call < LISTS; call++) alone.push((await timed(() => platform.call('GET', '/v1/capsules'))).ms)
  const worker = async (): Promise<void> => {
    for (let call = 0; call < LISTS; call++) await platform.call('GET', '/v1/capsules')
  }
  const { ms } = await timed(() => Promise.all(Array.from({ length: LISTS_AT_ONCE }, worker)))
  return {
    'GET /v1/capsules, alone': median(alone),
    [`the same, ${LISTS_AT_ONCE} at once, per call`]: ms / LISTS / LISTS_AT_ONCE,
  }
}

async function create(platform: Platform, path: string): Promise<Sample> {
  const made = await timed(() => platform.create(SHAPE))
  const { id } = made.value
  if (made.value.path !== path) throw new Error(`A create took the path ${made.value.path}, not ${path}.`)
  const first = await timed(() => platform.exec(id, '/bin/true'))
  await platform.destroy(id)
  return { [`create, ${path} → running`]: made.ms, [`create, ${path} → first output`]: made.ms + first.ms }
}

export const probes: Readonly<Record<string, Probe>> = {
  exec: { turnsPerIteration: 3, hotPool: false, begin: inCapsule(exec, WARM_UP) },
  pty: { turnsPerIteration: 1, hotPool: false, begin: inCapsule(pty) },
  stdout: { turnsPerIteration: 0.25, hotPool: false, begin: inCapsule(stdout) },
  list: {
    ...{ turnsPerIteration: 1, hotPool: false },
    begin: async (platform) => {
      await list(platform)
      return async () => await list(platform)
    },
  },
  sleep: { turnsPerIteration: 1, hotPool: false, begin: inCapsule(sleep) },
  fork: { turnsPerIteration: 0.25, hotPool: false, begin: inCapsule(fork) },
  restore: {
    ...{ turnsPerIteration: 1, hotPool: false },
    begin: async (platform) => {
      await platform.destroy((await platform.create(SHAPE)).id) // the first one finds cold files, or makes them
      return async () => await create(platform, 'restore')
    },
  },
  hot: {
    ...{ turnsPerIteration: 1, hotPool: true },
    begin: async (platform) => async () => {
      await hotGuestsWait(platform)
      const sample = await create(platform, 'hot')
      await hotGuestsWait(platform) // the other one's turn is not to pay for this
      return sample
    },
  },
}
