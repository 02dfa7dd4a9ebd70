import { access } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, KeyedMutex, type Logger } from '@wrenn/base'
import { type DnsForwarder, startDnsForwarder } from '../dns/index.js'
import { run } from '../exec.js'
import type { FilterProgram } from '../filter/index.js'
import type { Learned, Refusal } from '../names/index.js'
import { SlotRange } from './address.js'
import { refuseClash, uplinkMtu } from './clash.js'
import { dropForbidden } from './connections.js'
import { readExceptions } from './exceptions.js'
import { setUpHost, tearDownHost } from './host-setup.js'
import { formatLabel, parseLabel } from './label.js'
import { isOwnLink } from './own-links.js'
import { type EgressPolicy, type ResolvedPolicy, resolvePolicy } from './policy.js'
import { type Exceptions, exceptionRules, policyRules, slotRules } from './rules.js'
import {
  forgetConnections,
  GUEST_MAC,
  listLinks,
  listNamespaces,
  loadInSlot,
  makeSlot,
  removeSlots,
  setAlias,
} from './slot.js'
import { SlotNames } from './slot-names.js'
import { TAP } from './tap-counters.js'
import { ENDED_TRAFFIC, EndedTraffic, type GuestTraffic, guestIdOf, readSlotTraffic } from './traffic.js'
import { readUsed } from './used.js'

/** Uids that mean "nobody" or "no uid" to the kernel and libc. */
const RESERVED_UIDS = new Set([65_534, 65_535])
/** More namespaces than this on one machine are a mistake, not a load. */
const MAXIMUM_SLOTS = 4000

/** What the network of one platform is, all of it from configuration. */
export interface NetworkConfig {
  /** Prefix of namespaces, links and tables: WRENN_INSTANCE. */
  readonly prefix: string
  /** Host-side range, a /30 per slot: WRENN_NETWORK_CIDR. */
  readonly cidr: string
  /** A slot's uid is this plus its index. */
  readonly uidBase: number
  /** User of the control plane, which may connect to services in guests: WRENN_SOCKET_UID. @default 0 */
  readonly callerUid?: number
  /** Slots kept ready: WRENN_SLOT_POOL. */
  readonly poolSize: number
  /** WRENN_DIR: tells two platforms with the same prefix apart, and keeps what guests sent until somebody has noted it. */
  readonly platform: string
  /** Names the servers that answer the guests' look-ups: WRENN_RESOLV_CONF. @default '/etc/resolv.conf' */
  readonly resolvConfPath?: string
  /** Decides on connections by their names. @default none: policies with names are refused */
  readonly filter?: FilterProgram
}

/** What {@link createNetwork} needs; nothing on the machine changes before `start`. */
export interface NetworkOptions {
  readonly config: NetworkConfig
  readonly logger: Logger
}

/** A prepared place in the host's network for one guest. */
export interface Slot {
  readonly index: number
  readonly namespace: string
  readonly tap: string
  readonly mac: string
  readonly uid: number
  readonly gid: number
  /** Where the host (only its root) reaches the guest, TCP and UDP on every port. */
  readonly guestAddress: string
}

/** What is known of guests that run since an earlier start of this process. */
export interface StartOptions {
  /** By slot index, every slot that something still runs in. */
  readonly inUse: ReadonlyMap<number, SlotUse>
}

/** Who uses a slot. */
export interface SlotUse {
  /** Of the VM in it, by which it is given back. */
  readonly vmId: string
  /** Of the capsule, where the VM is one's; what people see. */
  readonly owner: string
}

/** What became of the slots of an earlier start. */
export interface StartResult {
  /** Taken over as they were. Load their policies again: these may have changed, or the rules that keep them. */
  readonly adopted: readonly Slot[]
  /** In use according to the caller, but gone from the host. */
  readonly lost: readonly number[]
}

interface OwnedEntry {
  readonly state: 'owned'
  /** Whose it is, whatever its label says. */
  readonly vmId: string
  /** What the root table lets through for this slot. */
  readonly allowPrivate: readonly string[]
  /** `fresh`: made by this process, no policy loaded yet. `foreign`: with the rules of an earlier start, perhaps of another version. */
  readonly table: 'fresh' | 'foreign' | 'loaded'
}

type Entry = { readonly state: 'making' | 'ready' | 'removing' } | OwnedEntry

/** The network slots of this host. One object per prefix and machine; it alone changes what carries the prefix. */
export interface Network {
  /** Starts the DNS forwarder, sweeps what nobody owns, takes over what is owned, then fills the pool in the background. */
  start(options: StartOptions): Promise<StartResult>
  /** A slot that reaches nothing until `applyPolicy`. @throws AppError `pool_exhausted` when the range is used up. */
  acquire(vmId: string): Promise<Slot>
  /** Removes the slot with its connections and rules, if it is still this VM's; idempotent. The VM in it must be gone. */
  release(index: number, vmId: string): Promise<void>
  /** Names who uses the slot from now on, for a VM that leaves the hot pool. */
  rename(index: number, owner: string): Promise<void>
  /** @throws AppError `invalid_request` naming the entry that no slot can keep. */
  checkPolicy(policy: EgressPolicy): void
  /**
   * Effective at once and in one step, also for open connections: what stays allowed is never cut, what becomes forbidden is reset.
   * @throws AppError `invalid_request` naming the entry.
   */
  applyPolicy(index: number, policy: EgressPolicy): Promise<void>
  /** Attempts by name that were refused of who is in the slot, the newest first; bounded. */
  refused(index: number): Promise<readonly Refusal[]>
  /** What who is in the slot has used since a policy that learns is in force; bounded. */
  learned(index: number): Promise<Learned>
  /** Names the guest in a slot like no other one, before and after; `undefined` when the slot is gone. */
  guestId(index: number): string | undefined
  /** What guests received and sent whose slots are gone, until {@link noted}. */
  ended(): readonly GuestTraffic[]
  /** Somebody keeps what these guests received and sent. */
  noted(guestIds: readonly string[]): Promise<void>
  /** Facts of a slot by its number, whether or not it exists. */
  slot(index: number): Slot
  /** `ready`: made and waiting; `owned`: in use; `free`: numbers that are left. */
  counts(): { readonly ready: number; readonly owned: number; readonly free: number }
  /** The address of the DNS forwarder. */
  readonly dnsAddress: string
  /** Waits for background work, starts no more, and stops the DNS forwarder; slots stay and keep their connections. */
  stop(): Promise<void>
  /** Stops and removes everything that carries the prefix, owned slots too. */
  removeAll(): Promise<void>
}

/** @throws AppError `invalid_config` for a range that is none. */
export function createNetwork({ config, logger }: NetworkOptions): Network {
  return new SlotNetwork(config, logger)
}

class SlotNetwork implements Network {
  readonly #config: NetworkConfig
  readonly #logger: Logger
  readonly #range: SlotRange
  readonly #entries = new Map<number, Entry>()
  readonly #perSlot = new KeyedMutex()
  readonly #names: SlotNames
  readonly #ended: EndedTraffic
  #filling: Promise<void> | undefined
  #forwarder: DnsForwarder | undefined
  #stopped = false
  #mtu = 1500

  constructor(config: NetworkConfig, logger: Logger) {
    if (!/^[a-z][a-z0-9]{0,7}$/.test(config.prefix)) {
      throw new AppError(
        'invalid_config',
        'WRENN_INSTANCE must be 1 to 8 lower-case letters and digits, a letter first.',
      )
    }
    this.#config = config
    this.#logger = logger
    this.#range = new SlotRange(config.cidr)
    this.#ended = new EndedTraffic(join(config.platform, ENDED_TRAFFIC))
    const { prefix, platform, filter: program } = config
    const label = formatLabel({ platform, owner: 'filter' })
    this.#names = new SlotNames({ prefix, range: this.#range, label, program, logger, mtu: () => this.#mtu })
  }

  get dnsAddress(): string {
    return this.#range.dns
  }

  async start({ inUse }: StartOptions): Promise<StartResult> {
    const { prefix, platform } = this.#config
    await this.#refuseForeignPrefix()
    await refuseClash(this.#range.cidr, (link) => this.#isOurs(link))
    this.#mtu = await uplinkMtu()
    const kept = await this.#whole(inUse)
    const exceptions = await readExceptions(
      prefix,
      [...kept.keys()].map((index) => this.slot(index).guestAddress),
    )
    const label = formatLabel({ platform, owner: 'dns' })
    await setUpHost(prefix, this.#range, { label, exceptions, callerUid: this.#config.callerUid ?? 0 }, this.#logger)
    await this.#names.adopt([...kept.keys()])
    await this.#ended.load()
    this.#forwarder ??= await startDnsForwarder({
      address: this.#range.dns,
      logger: this.#logger,
      mayAsk: (client, name) => this.#names.mayAsk(client, name),
      witness: this.#names.witness,
      ...(this.#config.resolvConfPath === undefined ? {} : { resolvConfPath: this.#config.resolvConfPath }),
    })
    const swept = await this.#adopt(kept, exceptions)
    const lost = [...inUse.keys()].filter((index) => !kept.has(index))
    this.#logger.info({ adopted: kept.size, swept, lost }, 'network.started')
    this.#stopped = false
    this.#refill()
    return { adopted: [...kept.keys()].map((index) => this.slot(index)), lost }
  }

  async acquire(vmId: string): Promise<Slot> {
    const index = this.#takeReady(vmId) ?? (await this.#makeOne(vmId))
    try {
      await setAlias(this.#name(index), this.#label(vmId))
      return this.slot(index)
    } catch (error) {
      await this.release(index, vmId)
      throw error
    } finally {
      // Last: making a slot holds the kernel's lock that the label needs.
      this.#refill()
    }
  }

  async release(index: number, vmId: string): Promise<void> {
    await this.#perSlot.run(String(index), async () => {
      const entry = this.#entries.get(index)
      // Given back before, and perhaps somebody else's by now.
      if (entry?.state !== 'owned' || entry.vmId !== vmId) return
      this.#entries.set(index, { state: 'removing' })
      try {
        await this.#dropExceptions(index, entry.allowPrivate)
        await this.#names.forget(index)
        await this.#keepTraffic(this.#name(index))
        await removeSlots([this.#name(index)])
        await forgetConnections(this.#range.addresses(index).guest)
        this.#entries.delete(index)
      } catch (error) {
        // Still there, so still owned: the caller may try again, and the next start sweeps it.
        this.#entries.set(index, entry)
        throw error
      }
    })
    this.#refill()
  }

  async rename(index: number, owner: string): Promise<void> {
    await this.#perSlot.run(String(index), async () => {
      this.#owned(index)
      await setAlias(this.#name(index), this.#label(owner))
    })
  }

  checkPolicy(policy: EgressPolicy): void {
    resolvePolicy(policy)
  }

  async applyPolicy(index: number, policy: EgressPolicy): Promise<void> {
    const resolved = resolvePolicy(policy)
    await this.#perSlot.run(String(index), async () => {
      const entry = this.#owned(index)
      const { guest } = this.#range.addresses(index)
      const exceptions = exceptionRules(this.#config.prefix, guest, entry.allowPrivate, resolved.allowPrivate)
      if (exceptions !== '') await run('nft', ['-f', '-'], { input: exceptions })
      await this.#names.apply(index, policy, resolved)
      const owned = { ...entry, allowPrivate: resolved.allowPrivate }
      // Not fresh even if the next step fails: it may have failed after the rules were in.
      this.#entries.set(index, { ...owned, table: entry.table === 'fresh' ? 'loaded' : entry.table })
      await loadInSlot(this.#name(index), this.#policyScript(index, resolved, entry))
      this.#entries.set(index, { ...owned, table: 'loaded' })
      if (entry.table === 'fresh') return
      const tracked = { namespace: this.#name(index), slotAddress: guest, dnsAddress: this.dnsAddress }
      await dropForbidden(tracked, resolved, this.#logger)
    })
  }

  async refused(index: number): Promise<readonly Refusal[]> {
    return await this.#names.refused(index)
  }

  async learned(index: number): Promise<Learned> {
    return await this.#names.learned(index, await readUsed(this.#name(index)))
  }

  guestId(index: number): string | undefined {
    return guestIdOf(this.#name(index))
  }

  ended(): readonly GuestTraffic[] {
    return this.#ended.list()
  }

  async noted(guestIds: readonly string[]): Promise<void> {
    await this.#ended.forget(guestIds)
  }

  /** Before the slot is removed, which waits for nothing of it. */
  async #keepTraffic(name: string): Promise<void> {
    try {
      const traffic = await readSlotTraffic(name)
      if (traffic !== undefined) await this.#ended.add(traffic)
    } catch (error) {
      this.#logger.warn({ slot: name, error: errorText(error) }, 'network.traffic_not_kept')
    }
  }

  #policyScript(index: number, policy: ResolvedPolicy, { table }: OwnedEntry): string {
    if (table !== 'foreign') return policyRules(policy, table === 'fresh')
    return slotRules(this.#range, this.#range.addresses(index)) + policyRules(policy, true)
  }

  slot(index: number): Slot {
    const uid = this.#config.uidBase + index
    return {
      index,
      namespace: this.#name(index),
      tap: TAP,
      mac: GUEST_MAC,
      uid,
      gid: uid,
      guestAddress: this.#range.addresses(index).guest,
    }
  }

  counts(): { ready: number; owned: number; free: number } {
    const states = [...this.#entries.values()].map(({ state }) => state)
    const count = (wanted: Entry['state']): number => states.filter((state) => state === wanted).length
    return { ready: count('ready'), owned: count('owned'), free: this.#lastIndex() - states.length }
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#filling
    await this.#forwarder?.close()
    this.#forwarder = undefined
    await this.#names.stop()
  }

  async removeAll(): Promise<void> {
    await this.stop()
    await this.#names.remove()
    await removeSlots(await this.#existing())
    await tearDownHost(this.#config.prefix)
    this.#entries.clear()
  }

  /** Those slots of an earlier start that are there with all their parts. */
  async #whole(inUse: ReadonlyMap<number, SlotUse>): Promise<ReadonlyMap<number, SlotUse>> {
    const links = new Set((await listLinks()).map(({ name }) => name))
    const namespaces = new Set(await listNamespaces())
    const isWhole = (name: string): boolean => links.has(name) && namespaces.has(name)
    return new Map([...inUse].filter(([index]) => isWhole(this.#name(index))))
  }

  /** Takes over what is kept and removes the rest. @returns how many were removed */
  async #adopt(kept: ReadonlyMap<number, SlotUse>, exceptions: Exceptions): Promise<number> {
    const keptNames = new Set([...kept.keys()].map((index) => this.#name(index)))
    const swept = (await this.#existing()).filter((name) => !keptNames.has(name))
    // Of a guest that has ended while nobody was here.
    for (const name of swept) await this.#keepTraffic(name)
    await removeSlots(swept)
    this.#entries.clear()
    for (const [index, { vmId, owner }] of kept) {
      await setAlias(this.#name(index), this.#label(owner))
      const allowPrivate = exceptions.get(this.#range.addresses(index).guest) ?? []
      this.#entries.set(index, { state: 'owned', vmId, allowPrivate, table: 'foreign' })
    }
    return swept.length
  }

  /** Names of slots found on the host, whole or in part. */
  async #existing(): Promise<readonly string[]> {
    const pattern = new RegExp(`^${this.#config.prefix}-\\d+$`)
    const links = (await listLinks()).map(({ name }) => name)
    return [...new Set([...links, ...(await listNamespaces())])].filter((name) => pattern.test(name))
  }

  /** Two platforms that share a prefix would sweep each other's capsules. */
  async #refuseForeignPrefix(): Promise<void> {
    for (const { name, alias } of await listLinks()) {
      if (!this.#isOurs(name)) continue
      const platform = parseLabel(alias)?.platform
      if (platform === undefined || platform === this.#config.platform || !(await exists(platform))) continue
      const message = `Network names starting with "${this.#config.prefix}" belong to the platform in ${platform}; choose another WRENN_INSTANCE for this one.`
      throw new AppError('invalid_config', message, { details: { link: name, platform } })
    }
  }

  #isOurs(link: string): boolean {
    return isOwnLink(this.#config.prefix, link)
  }

  #takeReady(vmId: string): number | undefined {
    const [index] = [...this.#entries].find(([, { state }]) => state === 'ready') ?? []
    if (index !== undefined) this.#own(index, vmId)
    return index
  }

  async #makeOne(vmId: string): Promise<number> {
    const index = this.#reserve()
    if (index === undefined) {
      const message = `All ${this.#lastIndex()} network slots of WRENN_NETWORK_CIDR ${this.#config.cidr} are in use.`
      throw new AppError('pool_exhausted', message)
    }
    await this.#make(index)
    this.#own(index, vmId)
    return index
  }

  #own(index: number, vmId: string): void {
    this.#entries.set(index, { state: 'owned', vmId, allowPrivate: [], table: 'fresh' })
  }

  #owned(index: number): OwnedEntry {
    const entry = this.#entries.get(index)
    if (entry?.state === 'owned') return entry
    throw new Error(`network slot ${index} is not in use`)
  }

  /** Takes the lowest free index, so that low numbers stay in use and names stay short. */
  #reserve(): number | undefined {
    for (let index = 1; index <= this.#lastIndex(); index += 1) {
      if (this.#entries.has(index) || RESERVED_UIDS.has(this.#config.uidBase + index)) continue
      this.#entries.set(index, { state: 'making' })
      return index
    }
    return undefined
  }

  async #make(index: number): Promise<void> {
    const { uid } = this.slot(index)
    const plan = { name: this.#name(index), index, uid, mtu: this.#mtu, label: this.#label(undefined) }
    try {
      await makeSlot(plan, this.#range)
    } catch (error) {
      this.#entries.delete(index)
      throw error
    }
  }

  /** Brings the pool to its size, one slot at a time: this work must not slow down a create. */
  #refill(): void {
    if (this.#filling || this.#stopped) return
    this.#filling = this.#fill()
      // The next acquire makes its own slot and reports what is wrong to its caller.
      .catch((error: unknown) => this.#logger.warn({ err: errorText(error) }, 'network.refill_failed'))
      .finally(() => {
        this.#filling = undefined
      })
  }

  async #fill(): Promise<void> {
    while (!this.#stopped && this.counts().ready < this.#config.poolSize) {
      const index = this.#reserve()
      if (index === undefined) return
      await this.#make(index)
      this.#entries.set(index, { state: 'ready' })
    }
  }

  async #dropExceptions(index: number, allowPrivate: readonly string[]): Promise<void> {
    const rules = exceptionRules(this.#config.prefix, this.#range.addresses(index).guest, allowPrivate, [])
    if (rules !== '') await run('nft', ['-f', '-'], { input: rules })
  }

  #lastIndex(): number {
    return Math.min(this.#range.lastIndex, MAXIMUM_SLOTS)
  }

  #name(index: number): string {
    return `${this.#config.prefix}-${index}`
  }

  #label(owner: string | undefined): string {
    return formatLabel({ platform: this.#config.platform, owner })
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  )
}
