import { readFileSync } from 'node:fs'
import { appendFile, readFile } from 'node:fs/promises'
import { isErrno, writeFileAtomic } from '@wrenn/base'
import { z } from 'zod'
import { runForResult } from '../exec.js'
import { parseLabel } from './label.js'
import { tapCounters } from './tap-counters.js'

/** Name of the file in the platform's directory. */
export const ENDED_TRAFFIC = 'ended-traffic'

const guestTraffic = z.object({
  /** Of the VM or capsule that the slot was named after last. */
  owner: z.string(),
  guestId: z.string(),
  rxBytes: z.int().nonnegative(),
  txBytes: z.int().nonnegative(),
})
/** What a guest received and sent from its start on. */
export type GuestTraffic = z.infer<typeof guestTraffic>

/** The boot and the number of the slot's link: the kernel gives numbers of links one after the other. */
export function guestIdOf(slot: string): string | undefined {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
    return `${boot}-${readFileSync(`/sys/class/net/${slot}/ifindex`, 'latin1').trim()}`
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EINVAL', 'ENODEV')) return undefined
    throw error
  }
}

/** Of a slot by its name; `undefined` for one that nobody has used, or that is there in part. */
export async function readSlotTraffic(slot: string): Promise<GuestTraffic | undefined> {
  const guestId = guestIdOf(slot)
  if (guestId === undefined) return undefined
  const owner = parseLabel((await readFile(`/sys/class/net/${slot}/ifalias`, 'utf8')).trim())?.owner
  if (owner === undefined) return undefined
  const { exitCode, stdout } = await runForResult('nsenter', [`--net=/run/netns/${slot}`, 'cat', '/proc/net/dev'])
  const counters = exitCode === 0 ? tapCounters(stdout) : undefined
  return counters && { owner, guestId, ...counters }
}

/**
 * Guests whose slots are gone, until somebody has noted what they received and sent; a line of a file for each, so that it outlives this
 * process.
 */
export class EndedTraffic {
  readonly #path: string
  readonly #guests = new Map<string, GuestTraffic>()
  /** One write after the other. */
  #written: Promise<void> = Promise.resolve()

  constructor(path: string) {
    this.#path = path
  }

  /** Reads what an earlier process has left. A line that it did not end is left out. */
  async load(): Promise<void> {
    const text = await readFile(this.#path, 'utf8').catch((error: unknown) => {
      if (isErrno(error, 'ENOENT')) return ''
      throw error
    })
    for (const line of text.split('\n')) {
      const guest = parsed(line)
      if (guest !== undefined) this.#guests.set(guest.guestId, guest)
    }
    // What is appended must begin a line.
    if (text !== '' && !text.endsWith('\n')) await this.#rewrite()
  }

  list(): readonly GuestTraffic[] {
    return [...this.#guests.values()]
  }

  /** Said of one guest again, as after a crash, the newest holds. */
  async add(guest: GuestTraffic): Promise<void> {
    this.#guests.set(guest.guestId, guest)
    await this.#inTurn(() => appendFile(this.#path, `${JSON.stringify(guest)}\n`, { mode: 0o600 }))
  }

  async forget(guestIds: readonly string[]): Promise<void> {
    const before = this.#guests.size
    for (const guestId of guestIds) this.#guests.delete(guestId)
    if (this.#guests.size < before) await this.#rewrite()
  }

  async #rewrite(): Promise<void> {
    await this.#inTurn(() => {
      const lines = this.list().map((guest) => `${JSON.stringify(guest)}\n`)
      return writeFileAtomic(this.#path, lines.join(''))
    })
  }

  async #inTurn(write: () => Promise<void>): Promise<void> {
    const written = this.#written.then(write, write)
    this.#written = written
    await written
  }
}

function parsed(line: string): GuestTraffic | undefined {
  try {
    return guestTraffic.safeParse(JSON.parse(line)).data
  } catch {
    // Half a line: its writer was killed.
    return undefined
  }
}
