import { capsuleIds } from '@wrenn/base'
import type { TapCounters } from '../../host/network/index.js'
import type { GuestProcess } from '../../host/usage/index.js'
import type { SlotPool } from '../machine.js'
import type { CapsuleRecord, VmResources } from '../types.js'

/** What a guest of a capsule received and sent from its start on. */
export interface CapsuleTraffic extends TapCounters {
  readonly capsuleId: string
  readonly guestId: string
  /** Nothing is added any more. */
  readonly ended: boolean
}

interface TrafficDeps {
  readonly records: () => readonly CapsuleRecord[]
  /** `undefined` for a guest that is gone. */
  readonly readNet: (guest: GuestProcess) => TapCounters | undefined
  readonly slots: Pick<SlotPool, 'guestId' | 'ended' | 'noted'>
}

/** Knows what capsules received and sent, guest by guest, as the kernel counts it: a restart of this process changes nothing. */
export class Traffic {
  readonly #deps: TrafficDeps

  constructor(deps: TrafficDeps) {
    this.#deps = deps
  }

  /** Of all guests that run, and of those that have ended and were not `noted`. */
  async collect(noted: readonly string[]): Promise<readonly CapsuleTraffic[]> {
    const { records, slots } = this.#deps
    const ofNobody = slots.ended().filter(({ owner }) => capsuleOf(owner) === undefined)
    // Nobody is told of them, so nobody notes them.
    await slots.noted([...noted, ...ofNobody.map(({ guestId }) => guestId)])
    const ended = slots.ended().flatMap(({ owner, ...traffic }) => {
      const capsuleId = capsuleOf(owner)
      return capsuleId === undefined ? [] : [{ capsuleId, ...traffic, ended: true }]
    })
    return [...ended, ...records().flatMap((record) => this.#running(record))]
  }

  #running({ capsuleId, resources, other }: CapsuleRecord): CapsuleTraffic[] {
    return [resources, other].flatMap((guest) => {
      const traffic = guest && this.#read(guest)
      return traffic === undefined ? [] : [{ capsuleId, ...traffic, ended: false }]
    })
  }

  /** In one turn: a guest whose counters are there has its slot. */
  #read({ vm, slotIndex }: VmResources): (TapCounters & { readonly guestId: string }) | undefined {
    const counters = vm && this.#deps.readNet(vm)
    const guestId = this.#deps.slots.guestId(slotIndex)
    return counters === undefined || guestId === undefined ? undefined : { guestId, ...counters }
  }
}

/** A VM's id is its capsule's, where a capsule has two with a number. Those of no capsule count for nobody. */
function capsuleOf(owner: string): string | undefined {
  const [id = ''] = /^[a-z]+-[0-9a-z]+/.exec(owner) ?? []
  return capsuleIds.is(id) ? id : undefined
}
