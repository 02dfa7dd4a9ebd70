import { AppError } from '@wrenn/base'
import type { Limits } from '../../config.js'
import type { Host } from '../../host/host.js'
import { type Hosts, noHost, type Whereabouts } from '../../host/hosts.js'
import { type Db, fromDatabaseError } from '../../store/database.js'
import { findHostOfCapsule, findHostOfSnapshot, goneAmong, isUnplaced } from '../../store/hosts.js'
import type { Notifications } from '../../store/notifications.js'
import {
  type HostLoad,
  listHostLoads,
  lockHost,
  lockPlacement,
  sharePlacement,
  tryLockHost,
} from '../../store/placement.js'
import { KeptLoads } from './kept-loads.js'
import { byChoice, byRoom, type Demand, hasRoom, type Room, roomOf, tagsNamed } from './load.js'

/** Where things are, as the database has it. */
export function whereaboutsIn(db: Db, notifications: Pick<Notifications, 'isFresh'>): Whereabouts {
  return {
    isFresh: () => notifications.isFresh,
    hostOf: ({ kind, id }) => said(kind === 'capsule' ? findHostOfCapsule(db, id) : findHostOfSnapshot(db, id)),
    isUnplaced: (id) => said(isUnplaced(db, id)),
    isGone: async (hostId) => (await said(goneAmong(db, [hostId]))).has(hostId),
  }
}

/** Else a query that fails would read as a host that does not answer. */
async function said<T>(query: Promise<T>): Promise<T> {
  try {
    return await query
  } catch (error) {
    throw fromDatabaseError(error)
  }
}

/** A capsule that is to be made, and of what. */
interface Wanted extends Demand {
  /** As people call it. */
  readonly template: string
  /** The host of its snapshot, or of an image that was fetched for it; absent: any that has the built-in template. */
  readonly hostId?: string | null | undefined
  /** It brings all that it stands on, so that no host need have its template. @default false */
  readonly isStored?: boolean
  /** Hosts that do not get it, and why, as the end of a sentence about each. */
  readonly not?: ReadonlyMap<string, string>
  /** The host that it shall go to, and no other. */
  readonly on?: string | undefined
  /** Whether that one is promised what it takes. @default false */
  readonly isPromised?: boolean
}

/** The host of a capsule, and why that. */
interface Placed {
  /** `null` where there is but one, which has not said yet who it is. */
  readonly hostId: string | null
  /** A sentence for people; where there is no choice, nothing. */
  readonly because?: string
}

interface PlacementDeps {
  readonly db: Db
  readonly hosts: Hosts
  /** How much of a host may be promised. */
  readonly share: Limits['hosts']
  /** From how many hosts on a choice goes by what was seen of them a moment ago. @default 32 */
  readonly manyHosts?: number
}

const MANY_HOSTS = 32
/** For people; the rest is counted. */
const NAMED_HOSTS = 8

/**
 * Chooses the hosts of capsules. Whatever a choice goes by, what the chosen host has left is looked at once nobody else may promise anything of it, which is so
 * until the end of the transaction: no host gets more than it has. Few hosts are all looked at for each choice, one choice at a time, so that the best one is
 * chosen; of many that would take too long.
 */
export class Placement {
  readonly #deps: PlacementDeps
  readonly #kept: KeptLoads
  /** How each transaction chooses. */
  readonly #ways = new WeakMap<Db, 'all' | 'kept'>()
  /** Transactions that have a host locked. */
  readonly #holding = new WeakSet<Db>()
  /** The room of each load, as long as that counts: of thousands it takes longer to find out than to choose. */
  readonly #known = new WeakMap<HostLoad, Room>()

  constructor(deps: PlacementDeps) {
    this.#deps = deps
    this.#kept = new KeptLoads(deps.db)
  }

  /**
   * Chooses the host of a capsule: where what it is made of is, else the one with the most of what it has least of. In the transaction that writes the capsule,
   * which is the promise.
   * @throws AppError `host_unavailable`, `no_hosts_available`, `host_not_found`, `template_not_found` when its host was removed
   */
  async place(tx: Db, wanted: Wanted): Promise<Placed> {
    const { hosts } = this.#deps
    const { hostId: boundTo, hostTags = [] } = wanted
    if (hosts.only !== undefined) {
      if (hostTags.length > 0)
        throw untagged(hostTags, 'capsules of this platform run on its own machine, which has none')
      return { hostId: hosts.only.id ?? null }
    }
    await this.#enter(tx)
    if (boundTo !== undefined && boundTo !== null) {
      return this.#bound(boundTo, await this.#locked(tx, boundTo, hostTags), wanted)
    }
    if (wanted.on !== undefined) return placeOn(await this.#locked(tx, wanted.on, hostTags), wanted.on, wanted)
    return await this.#best(tx, wanted)
  }

  /**
   * A host for work that is promised nothing, such as fetching an image for a capsule to come: the freest with room for that, if any has.
   * @throws AppError `host_unavailable`, `no_hosts_available`
   */
  async any(demand: Demand): Promise<Host> {
    const { hosts } = this.#deps
    const { hostTags = [] } = demand
    const rooms = hosts.only === undefined ? await this.#rooms(hostTags) : []
    const open = rooms.filter(({ closed }) => closed === undefined).sort(byRoom)
    const best = open.find((room) => hasRoom(room, demand)) ?? open[0]
    const host = hosts.only ?? (best && hosts.get(best.id))
    if (host !== undefined) return host
    if (rooms.length === 0) throw noHost()
    requireTagged(rooms, hostTags)
    const why = named(rooms, ({ id, closed }) => `${id} ${closed}`)
    throw new AppError('no_hosts_available', `No host takes new capsules: ${why}.`)
  }

  /** The hosts that would take a capsule of that size now; `undefined`: there is one, which has all. Nothing is promised by that. */
  async takers(demand: Demand): Promise<ReadonlySet<string> | undefined> {
    if (this.#deps.hosts.only !== undefined) return undefined
    const rooms = await this.#rooms(demand.hostTags)
    return new Set(rooms.filter((room) => room.closed === undefined && hasRoom(room, demand)).map(({ id }) => id))
  }

  #bound(id: string, room: Room | undefined, wanted: Wanted): Placed {
    const { template } = wanted
    if (room === undefined) {
      throw new AppError('template_not_found', `The template "${template}" was on ${id}, which was removed.`)
    }
    const why = room.closed ?? (hasRoom(room, wanted) ? undefined : `has no room for ${sizes(wanted)}`)
    if (why === undefined) return { hostId: id, because: `it alone has ${template}` }
    const code = room.answers ? 'no_hosts_available' : 'host_unavailable'
    const message = `The template "${template}" is on ${id} alone, which ${why}.`
    throw new AppError(code, message, { details: { host_id: id } })
  }

  async #best(tx: Db, wanted: Wanted): Promise<Placed> {
    const { hostTags = [] } = wanted
    const seen = await this.#look(tx)
    for (;;) {
      const rooms = [...seen.loads].map((load) => this.#roomOf(load, hostTags))
      const placed = await this.#among(tx, rooms, wanted, seen)
      if (placed !== undefined) return placed
      // Another one may have ended what is in the way, or there is a host more.
      if (!seen.isKept || !(await this.#kept.isRenewed(tx))) throw this.#refusal(rooms, wanted)
      seen.loads = await this.#kept.all(tx)
    }
  }

  /** The best of those that are as they were seen. `undefined`: there is none. */
  async #among(tx: Db, rooms: readonly Room[], wanted: Wanted, { isKept }: Look): Promise<Placed | undefined> {
    const { hostTags = [] } = wanted
    const open = rooms.filter((room) => this.#isOpen(room, wanted))
    const order = byChoice(this.#deps.share.placement)
    const passed = new Set<Room>()
    const busy: Room[] = []
    for (;;) {
      let best: Room | undefined
      for (const room of open) {
        if (hasRoom(room, wanted) && (best === undefined || order(room, best) < 0) && !passed.has(room)) best = room
      }
      // Others promise something of all that are left. Who holds a host waits for no other one, so that nobody waits in a circle.
      const waits = best === undefined && !this.#holding.has(tx) ? busy.shift() : undefined
      const next = best ?? waits
      if (next === undefined) return undefined
      passed.add(next)
      if (isKept && waits === undefined && !(await tryLockHost(tx, next.id))) {
        busy.push(next)
        continue
      }
      const room = await this.#locked(tx, next.id, hostTags)
      if (room === undefined || !this.#isOpen(room, wanted) || !hasRoom(room, wanted)) continue
      this.#promise(room, wanted)
      const among = `of ${open.length} hosts${hostTags.length === 0 ? '' : ` with ${tagsNamed(hostTags)}`}`
      return { hostId: room.id, because: `${percent(room.score)} of its ${room.scarcest} is free, ${among}` }
    }
  }

  #isOpen({ id, closed }: Room, { isStored, not, template }: Wanted): boolean {
    if (closed !== undefined || not?.has(id) === true) return false
    return isStored === true || mayHave(this.#deps.hosts.get(id), template)
  }

  /** Why none gets it. */
  #refusal(rooms: readonly Room[], wanted: Wanted): AppError {
    const { hostTags = [], not, template } = wanted
    if (rooms.length === 0) return noHost()
    const lack = tagsLacking(rooms, hostTags)
    if (lack !== undefined) return lack
    if (rooms.every(({ answers }) => !answers)) return new AppError('host_unavailable', 'No host answers now.')
    const [fullest] = rooms.filter((room) => this.#isOpen(room, wanted)).sort(byRoom)
    const why =
      fullest === undefined
        ? named(rooms, ({ id, closed = not?.get(id) ?? `does not have ${template}` }) => `${id} ${closed}`)
        : `the freest, ${fullest.id}, has ${leftOf(fullest)}`
    return new AppError('no_hosts_available', `No host has room for ${sizes(wanted)}: ${why}.`)
  }

  /**
   * Before anything is locked of a host: of few hosts nobody else chooses until the end of the transaction. A second choice in a transaction goes the way of the first
   * one, or two of these would wait for each other.
   */
  async #enter(tx: Db): Promise<void> {
    if (this.#ways.has(tx)) return
    const way = this.#goesByKept ? 'kept' : 'all'
    this.#ways.set(tx, way)
    await (way === 'kept' ? sharePlacement(tx) : lockPlacement(tx))
  }

  /** What a choice goes by: of few hosts all of them, as they are. */
  async #look(tx: Db): Promise<Look> {
    if (this.#ways.get(tx) === 'kept') return { loads: await this.#kept.all(tx), isKept: true }
    const loads = await listHostLoads(tx)
    if (loads.length < (this.#deps.manyHosts ?? MANY_HOSTS)) return { loads, isKept: false }
    return { loads: await this.#kept.all(tx), isKept: true }
  }

  get #goesByKept(): boolean {
    return this.#kept.count >= (this.#deps.manyHosts ?? MANY_HOSTS)
  }

  /** To look at; nobody is promised anything by it. */
  async #rooms(hostTags: readonly string[] = []): Promise<Room[]> {
    const loads = this.#goesByKept ? await this.#kept.all(this.#deps.db) : await listHostLoads(this.#deps.db)
    return [...loads].map((load) => this.#roomOf(load, hostTags))
  }

  /** One host as it is, of which nobody else promises anything until the end of the transaction. */
  async #locked(tx: Db, id: string, hostTags: readonly string[]): Promise<Room | undefined> {
    await lockHost(tx, id)
    this.#holding.add(tx)
    const [load] = await listHostLoads(tx, id)
    this.#kept.set(id, load)
    return load && this.#roomOf(load, hostTags)
  }

  /** The next one who chooses here sees it, although it is not written yet. */
  #promise({ load }: Room, { vcpus, memoryMib }: Demand): void {
    this.#kept.set(load.id, { ...load, usedVcpus: load.usedVcpus + vcpus, usedMib: load.usedMib + memoryMib })
  }

  #roomOf(load: HostLoad, hostTags: readonly string[]): Room {
    // Other control planes may hear of it, this one does not.
    const isUnheard = load.answers && this.#deps.hosts.get(load.id)?.isSilent === true
    if (isUnheard || hostTags.length > 0) {
      return roomOf(isUnheard ? { ...load, answers: false } : load, this.#deps.share, hostTags)
    }
    const before = this.#known.get(load)
    const room = before ?? roomOf(load, this.#deps.share)
    if (before === undefined) this.#known.set(load, room)
    return room
  }
}

/** What a choice goes by. */
interface Look {
  loads: Iterable<HostLoad>
  /** From a moment ago. */
  readonly isKept: boolean
}

function placeOn(room: Room | undefined, id: string, wanted: Wanted): Placed {
  if (room === undefined) throw new AppError('host_not_found', `There is no host ${id}, or it has not joined yet.`)
  const full = wanted.isPromised === true || hasRoom(room, wanted) ? undefined : `has ${leftOf(room)}`
  const why = wanted.not?.get(id) ?? room.closed ?? full
  if (why === undefined) return { hostId: id, because: 'it was asked for' }
  throw new AppError('no_hosts_available', `${id} cannot have ${sizes(wanted)}: it ${why}.`, {
    details: { host_id: id },
  })
}

function leftOf({ freeVcpus, freeMib }: Room): string {
  return `${Math.max(0, Math.floor(freeVcpus))} vCPUs and ${Math.max(0, Math.floor(freeMib))} MiB left`
}

/** What is so of each of them, of very many of some. */
function named(rooms: readonly Room[], say: (room: Room) => string): string {
  const more = rooms.length - NAMED_HOSTS
  return rooms.slice(0, NAMED_HOSTS).map(say).join(', ') + (more > 0 ? `, and ${more} more` : '')
}

/** @throws AppError as {@link tagsLacking} says */
function requireTagged(rooms: readonly Room[], tags: readonly string[]): void {
  const lack = tagsLacking(rooms, tags)
  if (lack !== undefined) throw lack
}

/** `no_hosts_available` naming the tags that no host has, or that none has together; `undefined`: one has all. */
function tagsLacking(rooms: readonly Room[], tags: readonly string[]): AppError | undefined {
  const missing = tags.filter((tag) => rooms.every(({ lacks }) => lacks.includes(tag)))
  if (missing.length > 0) return untagged(missing, 'an admin of the platform gives it by `wrenn host tag`')
  if (tags.length === 0 || rooms.some(({ lacks }) => lacks.length === 0)) return undefined
  const each = named(rooms, ({ id, lacks }) => `${id} lacks ${tagsNamed(lacks)}`)
  const message = `No host has ${tagsNamed(tags)} together: ${each}.`
  return new AppError('no_hosts_available', message, { details: { host_tags: tags } })
}

function untagged(tags: readonly string[], more: string): AppError {
  const details = { host_tags: tags }
  return new AppError('no_hosts_available', `No host has ${tagsNamed(tags)}; ${more}.`, { details })
}

/** A host that has said which templates it has, and this is none of them, does not get it. */
function mayHave(host: Host | undefined, name: string): boolean {
  const { knownTemplates = [] } = host ?? {}
  if (knownTemplates.length === 0) return true
  return knownTemplates.some((template) => template.name === name || template.aliases.includes(name))
}

function sizes({ vcpus, memoryMib }: Demand): string {
  return `${vcpus} vCPUs and ${memoryMib} MiB`
}

function percent(part: number): string {
  return `${Math.max(0, Math.round(part * 100))} %`
}
