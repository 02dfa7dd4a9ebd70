import { readdir, readlink } from 'node:fs/promises'
import { isErrno } from '@wrenn/base'
import { processesOf } from './host.js'
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

/** Ends supervisor, services, database and tools the hard way, all at once, and waits for none of them. Guests go on. */
export async function killAllButGuests({ artefacts, dir }: Platform): Promise<void> {
  const programs = (await processesOf(artefacts)).map(({ pid }) => pid)
  for (const pid of [...programs, ...(await processesIn(`${dir}/postgres/data`))]) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error // the death of another has ended it
    }
  }
}

/** Those that have a directory as theirs: the database and its workers. */
async function processesIn(dir: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const found = await Promise.all(
    pids.map(async (pid) => ((await readlink(`/proc/${pid}/cwd`).catch(() => '')) === dir ? [Number(pid)] : [])),
  )
  return found.flat()
}
