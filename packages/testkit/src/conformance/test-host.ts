import { capsuleIds, checkpointIds } from '@wrenn/base'
import type { Capsule, Checkpoint } from '@wrenn/protocol/host'
import { expect, it } from 'vitest'
import type { ConnectedHost, HostServiceAdapter } from './host-adapter.js'
import { type HostClient, TestCapsule } from './host-client.js'

export const SHAPE = { template: 'minimal', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 }

/** The host under test, and the capsules that a case made on it. */
export class TestHost {
  /** Of a case: several saves and restores. */
  readonly timeoutMs: number
  readonly isMachine: boolean
  readonly #adapter: HostServiceAdapter
  readonly #host: () => ConnectedHost
  readonly #made: string[] = []

  constructor(adapter: HostServiceAdapter, host: () => ConnectedHost) {
    this.#adapter = adapter
    this.#host = host
    this.timeoutMs = (adapter.timeoutMs ?? 60_000) * 3
    this.isMachine = adapter.guest === 'machine'
  }

  get client(): HostClient {
    return this.#host().client
  }

  async namesOf(capsuleId: string): Promise<readonly string[]> {
    return await this.#host().namesOf(capsuleId)
  }

  /** A case for what only a machine of its own can show. */
  onMachines(title: string, test: () => Promise<void>): void {
    const { guest } = this.#adapter
    it(title, async (context) => (guest === 'machine' ? await test() : context.skip(guest.instead)))
  }

  /** A capsule with this id, if there is one, is destroyed after the case. */
  known(id: string): TestCapsule {
    this.#made.push(id)
    return new TestCapsule(this.client, id)
  }

  async create(
    more: { envs?: Record<string, string>; snapshotId?: string; verified?: boolean } = {},
  ): Promise<TestCapsule> {
    const capsule = this.known(capsuleIds.create())
    const envs = { KEPT: 'yes', ...more.envs }
    await this.client.createCapsule({ capsuleId: capsule.id, ...SHAPE, generation: 1n, ...more, envs })
    return capsule
  }

  /** Lets a capsule's guest end by itself, and waits until its host says so. */
  async endGuest(capsule: TestCapsule): Promise<void> {
    await this.#host().endGuest(capsule.id)
    await expect.poll(async () => await stateOf(capsule), { timeout: this.timeoutMs }).toBe('error')
  }

  async destroyAll(): Promise<void> {
    for (const capsuleId of this.#made.splice(0)) await this.client.destroyCapsule({ capsuleId })
  }
}

export async function pause({ client, id }: TestCapsule, reason = 'request'): Promise<Capsule | undefined> {
  return (await client.pauseCapsule({ capsuleId: id, reason })).capsule
}

export async function resume({ client, id }: TestCapsule): Promise<Capsule | undefined> {
  return (await client.resumeCapsule({ capsuleId: id })).capsule
}

export async function stateOf({ client, id }: TestCapsule): Promise<string | undefined> {
  return (await client.getCapsule({ capsuleId: id })).capsule?.state
}

export async function checkpoint(
  { client, id }: TestCapsule,
  checkpointId: string = checkpointIds.create(),
): Promise<Checkpoint> {
  const answer = await client.createCheckpoint({ capsuleId: id, checkpointId })
  if (answer.checkpoint === undefined) throw new Error('The answer has no checkpoint.')
  return answer.checkpoint
}

export async function rollback({ client, id }: TestCapsule, to: Checkpoint): Promise<Capsule | undefined> {
  return (await client.rollbackCapsule({ capsuleId: id, checkpointId: to.checkpointId })).capsule
}
