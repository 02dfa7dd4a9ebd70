import { AppError } from '@wrenn/base'
import type { Limits } from '../../config.js'
import type { Host } from '../../host/host.js'
import { type Hosts, noHost, type Whereabouts } from '../../host/hosts.js'
import { type Db, fromDatabaseError } from '../../store/database.js'
import { findHostOfCapsule, findHostOfSnapshot, goneAmong, isUnplaced } from '../../store/hosts.js'
import type { Notifications } from '../../store/notifications.js'
import { listHostLoads, lockPlacement } from '../../store/placement.js'
import { byChoice, type Demand, freest, hasRoom, type Room, roomOf, tagsNamed } from './load.js'

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
  readonly hosts: Hosts
  /** How much of a host may be promised. */
  readonly share: Limits['hosts']
}

/**
 * Chooses the host of a capsule: where what it is made of is, else the one with the most of what it has least of. In the transaction that writes the capsule,
 * which is the promise: until its end nobody else chooses, so no host gets more than it has.
 * @throws AppError `host_unavailable`, `no_hosts_available`, `template_not_found` when its host was removed
 */
export async function placeCapsule(tx: Db, deps: PlacementDeps, wanted: Wanted): Promise<Placed> {
  const { hosts } = deps
  const { hostId: boundTo, template, hostTags = [], not } = wanted
  if (hosts.only !== undefined) {
    if (hostTags.length > 0)
      throw untagged(hostTags, 'capsules of this platform run on its own machine, which has none')
    return { hostId: hosts.only.id ?? null }
  }
  await lockPlacement(tx)
  const rooms = await roomsOf(tx, deps, hostTags)
  if (boundTo !== undefined && boundTo !== null) {
    const room = rooms.find(({ id }) => id === boundTo)
    if (room === undefined) {
      throw new AppError('template_not_found', `The template "${template}" was on ${boundTo}, which was removed.`)
    }
    const why = room.closed ?? (hasRoom(room, wanted) ? undefined : `has no room for ${sizes(wanted)}`)
    if (why === undefined) return { hostId: boundTo, because: `it alone has ${template}` }
    const code = room.answers ? 'no_hosts_available' : 'host_unavailable'
    const message = `The template "${template}" is on ${boundTo} alone, which ${why}.`
    throw new AppError(code, message, { details: { host_id: boundTo } })
  }
  if (rooms.length === 0) throw noHost()
  if (wanted.on !== undefined) return placeOn(rooms, wanted.on, wanted)
  requireTagged(rooms, hostTags)
  const has = (id: string): boolean => wanted.isStored === true || mayHave(hosts.get(id), template)
  const open = rooms.filter(({ id, closed }) => closed === undefined && not?.has(id) !== true && has(id))
  const fitting = open.filter((room) => hasRoom(room, wanted))
  const [best] = byChoice(fitting, deps.share.placement)
  if (best !== undefined) {
    const among = `of ${open.length} hosts${hostTags.length === 0 ? '' : ` with ${tagsNamed(hostTags)}`}`
    return { hostId: best.id, because: `${percent(best.score)} of its ${best.scarcest} is free, ${among}` }
  }
  if (rooms.every(({ answers }) => !answers)) throw new AppError('host_unavailable', 'No host answers now.')
  const [fullest] = freest(open)
  const why =
    fullest === undefined
      ? rooms.map(({ id, closed = not?.get(id) ?? `does not have ${template}` }) => `${id} ${closed}`).join(', ')
      : `the freest, ${fullest.id}, has ${Math.max(0, Math.floor(fullest.freeVcpus))} vCPUs and ${Math.max(0, Math.floor(fullest.freeMib))} MiB left`
  throw new AppError('no_hosts_available', `No host has room for ${sizes(wanted)}: ${why}.`)
}

function placeOn(rooms: readonly Room[], id: string, wanted: Wanted): Placed {
  const room = rooms.find((each) => each.id === id)
  if (room === undefined) throw new AppError('host_not_found', `There is no host ${id}, or it has not joined yet.`)
  const left = `${Math.max(0, Math.floor(room.freeVcpus))} vCPUs and ${Math.max(0, Math.floor(room.freeMib))} MiB left`
  const full = wanted.isPromised === true || hasRoom(room, wanted) ? undefined : `has ${left}`
  const why = wanted.not?.get(id) ?? room.closed ?? full
  if (why === undefined) return { hostId: id, because: 'it was asked for' }
  throw new AppError('no_hosts_available', `${id} cannot have ${sizes(wanted)}: it ${why}.`, {
    details: { host_id: id },
  })
}

/**
 * A host for work that is promised nothing, such as fetching an image for a capsule to come: the freest with room for that, if any has.
 * @throws AppError `host_unavailable`, `no_hosts_available`
 */
export async function anyHost(db: Db, deps: PlacementDeps, demand: Demand): Promise<Host> {
  const { hosts } = deps
  const { hostTags = [] } = demand
  const rooms = hosts.only === undefined ? await roomsOf(db, deps, hostTags) : []
  const open = freest(rooms.filter(({ closed }) => closed === undefined))
  const best = open.find((room) => hasRoom(room, demand)) ?? open[0]
  const host = hosts.only ?? (best && hosts.get(best.id))
  if (host !== undefined) return host
  if (rooms.length === 0) throw noHost()
  requireTagged(rooms, hostTags)
  throw new AppError(
    'no_hosts_available',
    `No host takes new capsules: ${rooms.map(({ id, closed }) => `${id} ${closed}`).join(', ')}.`,
  )
}

/** The hosts that would take a capsule of that size now; `undefined`: there is one, which has all. Nothing is promised by that. */
export async function hostsThatTake(
  db: Db,
  deps: PlacementDeps,
  demand: Demand,
): Promise<ReadonlySet<string> | undefined> {
  if (deps.hosts.only !== undefined) return undefined
  const rooms = await roomsOf(db, deps, demand.hostTags)
  return new Set(rooms.filter((room) => room.closed === undefined && hasRoom(room, demand)).map(({ id }) => id))
}

/** @throws AppError `no_hosts_available` naming the tags that no host has, or that none has together */
function requireTagged(rooms: readonly Room[], tags: readonly string[]): void {
  const missing = tags.filter((tag) => rooms.every(({ lacks }) => lacks.includes(tag)))
  if (missing.length > 0) throw untagged(missing, 'an admin of the platform gives it by `wrenn host tag`')
  if (tags.length === 0 || rooms.some(({ lacks }) => lacks.length === 0)) return
  const each = rooms.map(({ id, lacks }) => `${id} lacks ${tagsNamed(lacks)}`).join(', ')
  const message = `No host has ${tagsNamed(tags)} together: ${each}.`
  throw new AppError('no_hosts_available', message, { details: { host_tags: tags } })
}

function untagged(tags: readonly string[], more: string): AppError {
  const details = { host_tags: tags }
  return new AppError('no_hosts_available', `No host has ${tagsNamed(tags)}; ${more}.`, { details })
}

async function roomsOf(
  db: Db,
  { hosts, share }: PlacementDeps,
  hostTags: readonly string[] = [],
): Promise<readonly Room[]> {
  return (await listHostLoads(db)).map((load) => {
    // Other control planes may hear of it, this one does not.
    const answers = load.answers && hosts.get(load.id)?.isSilent !== true
    return roomOf({ ...load, answers }, share, hostTags)
  })
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
