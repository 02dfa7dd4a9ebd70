import { EventEmitter } from 'node:events'
import { join } from 'node:path'
import { hostIds } from '@wrenn/base'
import { FakeCapsule, type FakeExit } from './fake-capsule.js'

export type FakeChange = { readonly capsule: FakeCapsule } | { readonly removed: string } | 'keepalive'

/** What a fake host knows; it survives a restart of its server. */
export class FakeHostState {
  readonly hostId = hostIds.create()
  readonly capsules = new Map<string, FakeCapsule>()
  readonly changes = new EventEmitter<{ change: [FakeChange] }>().setMaxListeners(0)
  readonly templates = [
    { name: 'minimal', aliases: ['base'] },
    { name: 'python', aliases: [] },
  ] as const
  /** What GetHost says. */
  notReadyReason = ''
  /** Calls of CreateCapsule that made one. */
  creates = 0
  protected readonly dir: string
  #gate: Promise<void> | undefined
  #openGate: () => void = () => {}

  constructor(dir: string) {
    this.dir = dir
  }

  /** Creates that arrive from now on wait until the returned function is called. */
  holdCreates(): () => void {
    this.#gate = new Promise((resolve) => {
      this.#openGate = resolve
    })
    return () => {
      this.#gate = undefined
      this.#openGate()
    }
  }

  async passGate(): Promise<void> {
    await this.#gate
  }

  async addCapsule(id: string): Promise<FakeCapsule> {
    const capsule = await FakeCapsule.create(id, join(this.dir, id))
    this.capsules.set(id, capsule)
    return capsule
  }

  announce(capsule: FakeCapsule): void {
    this.changes.emit('change', { capsule })
  }

  /** Removes a capsule with its files and processes. */
  async remove(id: string): Promise<boolean> {
    const capsule = this.capsules.get(id)
    if (capsule === undefined) return false
    this.capsules.delete(id)
    await capsule.dispose()
    this.changes.emit('change', { removed: id })
    return true
  }

  /** The guest dies by itself. */
  die(id: string, exit: FakeExit): void {
    const capsule = this.capsules.get(id)
    if (capsule === undefined) return
    capsule.die(exit)
    this.announce(capsule)
  }
}
