import { capsuleIds } from '@wrenn/base'
import { TestCapsule, Witnesses } from '@wrenn/testkit'
import { eventually } from '../../e2e/harness/wait.js'
import type { HostAgent } from './host-agent.js'

export const SHAPE = { template: 'minimal', vcpus: 1, memoryMib: 512, diskSizeMib: 5120 }

/** A capsule with something to lose: a nonce in a process's memory, one in tmpfs, one in a file, and a process that counts. */
export class Subject {
  readonly id: string
  readonly #agent: HostAgent
  readonly #witnesses = new Witnesses()
  #counted = 0

  private constructor(agent: HostAgent, id: string) {
    this.#agent = agent
    this.id = id
  }

  static async create(agent: HostAgent): Promise<Subject> {
    const subject = new Subject(agent, capsuleIds.create())
    await create(agent, subject.id)
    await subject.startOver()
    return subject
  }

  /** Puts back what is in memory, which is lost by what keeps files only. */
  async startOver(): Promise<void> {
    await this.#witnesses.start(this.capsule)
    const { nonce } = this.#witnesses
    await this.capsule.output(`echo ${nonce} > /dev/shm/nonce; echo ${nonce} > /root/nonce; sync`)
    this.#counted = 0
  }

  /** Through the line to the host agent as it runs now. */
  get capsule(): TestCapsule {
    return new TestCapsule(this.#agent.client, this.id)
  }

  async state(): Promise<string> {
    return (await this.#agent.client.getCapsule({ capsuleId: this.id })).capsule?.state ?? 'unknown'
  }

  async untilState(state: string): Promise<void> {
    await eventually(`${this.id} to be ${state}`, async () => ((await this.state()) === state ? true : undefined))
  }

  async pause(): Promise<void> {
    await this.#agent.client.pauseCapsule({ capsuleId: this.id })
  }

  async resume(): Promise<void> {
    await this.#agent.client.resumeCapsule({ capsuleId: this.id })
  }

  /** Its kernel panics; returns when its host says so. */
  async die(): Promise<void> {
    await this.capsule.output('echo c > /proc/sysrq-trigger').catch(() => {}) // it ends with its guest
    await eventually(`${this.id} to have ended`, async () => ((await this.state()) === 'error' ? true : undefined))
  }

  /** What tells one moment of the capsule from another, in its memory and on its disk. */
  async mark(mark: string): Promise<void> {
    await this.capsule.output(`echo ${mark} > /dev/shm/mark; echo ${mark} > /root/mark; sync /root/mark`)
  }

  /** @throws Error when memory and disk are of different moments */
  async marked(): Promise<string> {
    const marks = (await this.capsule.output('cat /dev/shm/mark /root/mark')).split('\n')
    if (new Set(marks).size !== 1) throw new Error(`Memory and disk are of different moments: ${marks.join(', ')}.`)
    return marks[0] ?? ''
  }

  async markedOnDisk(): Promise<string> {
    return await this.capsule.output('cat /root/mark')
  }

  /** What the counter has reached belongs to the moment that a rollback gives up. */
  forgetCount(): void {
    this.#counted = 0
  }

  /** @throws Error saying what was lost */
  async expectIntact(): Promise<void> {
    const { nonce } = this.#witnesses
    const found = await this.capsule.output('cat /dev/shm/nonce /root/nonce')
    if (found !== `${nonce}\n${nonce}`)
      throw new Error(`The nonces in tmpfs and in the file are ${found}, not ${nonce}.`)
    await this.#witnesses.recall(this.capsule)
    this.#counted = await this.#witnesses.count(this.capsule, this.#counted, 1)
  }
}

export async function create(
  { client }: HostAgent,
  capsuleId: string,
  more: { readonly snapshotId?: string } = {},
): Promise<void> {
  await client.createCapsule({ capsuleId, ...SHAPE, generation: 1n, teamId: 'chaos', hostname: 'chaos', ...more })
}
