import { type Platform, pidsOf } from './platform.js'
import { eventually } from './wait.js'

/** Ready, as whoever operates it would ask. */
export async function untilReady(platform: Platform): Promise<void> {
  await eventually('the platform to be ready', async () => {
    const answer = await fetch(new URL('/ready', platform.url)).catch(() => undefined)
    return answer?.status === 200 ? true : undefined
  })
}

/** Ends one of the platform's processes the hard way, and waits until the supervisor has put another in its place. */
export async function killAndAwait(platform: Platform, name: 'host-agent' | 'control-plane'): Promise<void> {
  const killed = (await pidsOf(platform))[name]
  if (killed === undefined) throw new Error(`There is no ${name}.`)
  process.kill(killed, 'SIGKILL')
  await eventually(`another ${name}`, async () => {
    const now = (await pidsOf(platform))[name]
    return now !== undefined && now !== killed ? now : undefined
  })
  await untilReady(platform)
}
