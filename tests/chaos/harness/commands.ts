import { capsuleIds, checkpointIds, snapshotIds } from '@wrenn/base'
import { failure, TestCapsule } from '@wrenn/testkit'
import { eventually } from '../../e2e/harness/wait.js'
import type { HostAgent } from './host-agent.js'
import { create, type Subject } from './subject.js'

/** Before or after the command, as a whole; nothing in between exists. */
export type Moment = 'old' | 'new'

/** Where a command can be broken off, and what must be found then. */
export interface Step {
  readonly name: string
  readonly afterKill: Moment
  /** Absent where the same code fails in the same way in another command's table. */
  readonly afterFail: Moment | undefined
}

/** A command of the lifecycle, in one of its ways, as chaos sees it. */
export abstract class Command {
  abstract readonly title: string
  abstract readonly steps: readonly Step[]
  /** Environment of the host agent, where the command needs one of its own. */
  readonly env: Readonly<Record<string, string>> = {}

  constructor(readonly agent: HostAgent) {}

  abstract prepare(subject: Subject): Promise<void>
  /** A caller repeats exactly this. */
  abstract run(subject: Subject): Promise<unknown>
  /** @throws Error when what is found is neither */
  abstract moment(subject: Subject): Promise<Moment>
  /** Back to a running subject alone on the host. */
  async cleanUp(_subject: Subject): Promise<void> {}
}

const step = (name: string, afterKill: Moment, afterFail: Moment = 'old'): Step => ({ name, afterKill, afterFail })
const killOnly = (name: string, afterKill: Moment): Step => ({ name, afterKill, afterFail: undefined })

export class Pause extends Command {
  readonly title = 'a pause'
  readonly steps = [
    step('pause:begun', 'old'),
    step('pause:stopped', 'old'),
    step('pause:saved', 'old'),
    step('pause:committed', 'new'),
  ]

  async prepare(): Promise<void> {}

  async run(subject: Subject): Promise<void> {
    await subject.pause()
  }

  async moment(subject: Subject): Promise<Moment> {
    const moment = momentOf(await subject.state(), { running: 'old', paused: 'new' })
    if (moment === 'old') await subject.expectIntact()
    return moment
  }

  override async cleanUp(subject: Subject): Promise<void> {
    await subject.resume()
  }
}

export class ResumeInPlace extends Command {
  readonly title: string = 'a resume in place'
  readonly steps: readonly Step[] = [
    step('resume:begun', 'old'),
    step('guest:launched', 'old'),
    step('resume:restored', 'old'),
    step('resume:retracted', 'new'),
  ]

  async prepare(subject: Subject): Promise<void> {
    await subject.pause()
  }

  async run(subject: Subject): Promise<void> {
    await subject.resume()
  }

  async moment(subject: Subject): Promise<Moment> {
    return momentOf(await subject.state(), { paused: 'old', running: 'new' })
  }
}

export class ResumeDurable extends ResumeInPlace {
  override readonly title = 'a resume of a durable state'
  override readonly steps = [
    step('resume:begun', 'old'),
    step('guest:launched', 'old'),
    step('resume:restored', 'old'),
    step('resume:switched', 'new'),
  ]

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await untilDurable(this.agent, subject.id)
  }
}

export class ResumeFromDisk extends Command {
  readonly title = 'a resume from the disk'
  readonly steps = [
    step('resume:begun', 'old'),
    step('guest:launched', 'old'),
    step('resume:booted', 'old'),
    step('resume:switched', 'new'),
  ]

  async prepare(subject: Subject): Promise<void> {
    await subject.mark('files')
    await subject.pause()
    await untilDurable(this.agent, subject.id)
  }

  async run({ id: capsuleId }: Subject): Promise<void> {
    await this.agent.client.resumeCapsule({ capsuleId, fromDisk: { envs: {}, defaultUser: '', defaultCwd: '' } })
  }

  async moment(subject: Subject): Promise<Moment> {
    const moment = momentOf(await subject.state(), { paused: 'old', running: 'new' })
    if (moment === 'new' && (await subject.markedOnDisk()) !== 'files')
      throw new Error('The files are not those of the pause.')
    return moment
  }

  /** Its memory is gone, and with it what the next case looks for. */
  override async cleanUp(subject: Subject): Promise<void> {
    await subject.startOver()
  }
}

export async function untilDurable({ client }: HostAgent, capsuleId: string): Promise<void> {
  await eventually('the state to be durable', async () => {
    const { capsule } = await client.getCapsule({ capsuleId })
    return capsule !== undefined && capsule.durableAtMs > 0n ? true : undefined
  })
}

export class Fork extends Command {
  readonly title = 'a fork'
  readonly steps = [
    step('fork:begun', 'old'),
    killOnly('fork:flushed', 'old'),
    killOnly('fork:stopped', 'old'),
    killOnly('fork:cloned', 'old'),
    killOnly('fork:committed', 'old'),
    killOnly('guest:launched', 'old'),
    step('fork:restored', 'old'),
    step('fork:started', 'old'),
    step('fork:kept', 'new'),
  ]
  #copies: { capsuleId: string; hostname: string; generation: bigint }[] = []

  async prepare(): Promise<void> {
    this.#copies = [1, 2].map((number) => ({
      capsuleId: capsuleIds.create(),
      hostname: `copy-${number}`,
      generation: 1n,
    }))
  }

  async run(subject: Subject): Promise<void> {
    await this.agent.client.forkCapsule({ capsuleId: subject.id, copies: this.#copies })
  }

  async moment(subject: Subject): Promise<Moment> {
    await subject.expectIntact()
    const states = await Promise.all(this.#copies.map(({ capsuleId }) => stateOf(this.agent, capsuleId)))
    const moments = states.map((state) => momentOf(state, { absent: 'old', running: 'new' }))
    if (new Set(moments).size > 1) throw new Error(`Some copies exist and some do not: ${states.join(', ')}.`)
    if (moments[0] === 'new') await this.#expectUsable()
    return moments[0] ?? 'old'
  }

  override async cleanUp(): Promise<void> {
    for (const { capsuleId } of this.#copies) await this.agent.client.destroyCapsule({ capsuleId })
  }

  /** Each copy knows that it is one. */
  async #expectUsable(): Promise<void> {
    for (const { capsuleId, hostname } of this.#copies) {
      const found = await new TestCapsule(this.agent.client, capsuleId).output('hostname')
      if (found !== hostname) throw new Error(`A copy calls itself ${found}, not ${hostname}.`)
    }
  }
}

export class Checkpoint extends Command {
  readonly title = 'a checkpoint'
  readonly steps = [
    step('checkpoint:begun', 'old'),
    step('checkpoint:flushed', 'old'),
    step('checkpoint:stopped', 'old'),
    step('checkpoint:cloned', 'old'),
    step('checkpoint:committed', 'old'),
    step('checkpoint:kept', 'new'),
  ]
  #checkpointId = ''

  async prepare(): Promise<void> {
    this.#checkpointId = checkpointIds.create()
  }

  async run(subject: Subject): Promise<void> {
    await this.agent.client.createCheckpoint({ capsuleId: subject.id, checkpointId: this.#checkpointId })
    const stands = (await this.agent.client.getCapsule({ capsuleId: subject.id })).capsule?.checkpointId
    if (stands !== this.#checkpointId) throw new Error(`The capsule stands on ${stands}, not on its new checkpoint.`)
  }

  async moment(subject: Subject): Promise<Moment> {
    await subject.expectIntact()
    const { checkpoints } = await this.agent.client.listCheckpoints({ capsuleId: subject.id })
    return checkpoints.some(({ checkpointId }) => checkpointId === this.#checkpointId) ? 'new' : 'old'
  }

  override async cleanUp({ id: capsuleId }: Subject): Promise<void> {
    await this.agent.client.deleteCheckpoint({ capsuleId, checkpointId: this.#checkpointId })
  }
}

export class Rollback extends Command {
  readonly title: string = 'a rollback'
  readonly steps: readonly Step[] = [
    step('rollback:begun', 'old'),
    step('guest:launched', 'old'),
    step('rollback:restored', 'old'),
    step('rollback:switched', 'new'),
  ]
  #checkpointId = ''

  async prepare(subject: Subject): Promise<void> {
    this.#checkpointId = checkpointIds.create()
    await subject.mark('before')
    await this.agent.client.createCheckpoint({ capsuleId: subject.id, checkpointId: this.#checkpointId })
    await subject.mark('after')
    subject.forgetCount()
  }

  async run(subject: Subject): Promise<void> {
    await this.agent.client.rollbackCapsule({ capsuleId: subject.id, checkpointId: this.#checkpointId })
  }

  async moment(subject: Subject): Promise<Moment> {
    momentOf(await subject.state(), { running: 'new' })
    return momentOf(await subject.marked(), { after: 'old', before: 'new' })
  }

  override async cleanUp({ id: capsuleId }: Subject): Promise<void> {
    await this.agent.client.deleteCheckpoint({ capsuleId, checkpointId: this.#checkpointId })
  }
}

export class RollbackPaused extends Rollback {
  override readonly title = 'a rollback of a paused capsule'
  override readonly steps = [step('rollback:copied', 'old'), step('rollback:switched', 'new')]

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await subject.pause()
  }

  /** It stays paused; what it is only shows when it runs. */
  override async moment(subject: Subject): Promise<Moment> {
    momentOf(await subject.state(), { paused: 'new' })
    await subject.resume()
    const moment = await super.moment(subject)
    await subject.pause()
    return moment
  }

  override async cleanUp(subject: Subject): Promise<void> {
    await super.cleanUp(subject)
    await subject.resume()
  }
}

export class RollbackEnded extends Rollback {
  override readonly title = 'a rollback of an ended capsule'

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await subject.die()
  }

  override async moment(subject: Subject): Promise<Moment> {
    const moment = momentOf(await subject.state(), { error: 'old', running: 'new' })
    if (moment === 'new') momentOf(await subject.marked(), { before: 'new' })
    return moment
  }
}

export class Snapshot extends Command {
  readonly title = 'a snapshot'
  readonly steps = [
    step('snapshot:begun', 'old'),
    killOnly('snapshot:flushed', 'old'),
    killOnly('snapshot:stopped', 'old'),
    killOnly('snapshot:cloned', 'old'),
    killOnly('snapshot:committed', 'old'),
    step('snapshot:kept', 'new', 'new'),
  ]
  #snapshotId = ''

  async prepare(): Promise<void> {
    this.#snapshotId = snapshotIds.create()
  }

  async run(subject: Subject): Promise<void> {
    await this.agent.client.createSnapshot({ capsuleId: subject.id, snapshotId: this.#snapshotId })
  }

  async moment(subject: Subject): Promise<Moment> {
    await subject.expectIntact()
    const { snapshots } = await this.agent.client.listSnapshots({})
    return snapshots.some(({ snapshotId }) => snapshotId === this.#snapshotId) ? 'new' : 'old'
  }

  override async cleanUp(): Promise<void> {
    await this.agent.client.deleteSnapshot({ snapshotId: this.#snapshotId })
  }
}

export class Diff extends Command {
  readonly title = 'a diff with the present'
  readonly steps = [
    killOnly('diff:flushed', 'old'),
    step('diff:stopped', 'old'),
    killOnly('diff:cloned', 'old'),
    killOnly('diff:committed', 'old'),
  ]
  #checkpointId = ''
  #isTold = false

  async prepare({ id: capsuleId, capsule }: Subject): Promise<void> {
    this.#checkpointId = checkpointIds.create()
    this.#isTold = false
    await this.agent.client.createCheckpoint({ capsuleId, checkpointId: this.#checkpointId })
    await capsule.output('echo new > /root/new-file')
  }

  async run({ id: capsuleId }: Subject): Promise<void> {
    const request = { capsuleId, fromCheckpointId: this.#checkpointId, path: '/root' }
    for await (const { changes } of this.agent.client.diffCheckpoints(request)) {
      this.#isTold ||= changes.some(({ path }) => path === '/root/new-file')
    }
  }

  /** It changes nothing: all there is to find is its answer. */
  async moment(subject: Subject): Promise<Moment> {
    await subject.expectIntact()
    return this.#isTold ? 'new' : 'old'
  }

  override async cleanUp({ id: capsuleId, capsule }: Subject): Promise<void> {
    await capsule.output('rm /root/new-file')
    await this.agent.client.deleteCheckpoint({ capsuleId, checkpointId: this.#checkpointId })
  }
}

export class Create extends Command {
  readonly title: string = 'a create'
  readonly steps: readonly Step[] = [
    step('create:begun', 'old'),
    step('guest:launched', 'old'),
    step('create:restored', 'old'),
    step('create:identified', 'old'),
    step('create:started', 'new'),
  ]
  protected id = ''

  async prepare(_subject: Subject): Promise<void> {
    this.id = capsuleIds.create()
  }

  async run(_subject: Subject): Promise<void> {
    await create(this.agent, this.id)
  }

  async moment(subject: Subject): Promise<Moment> {
    await subject.expectIntact()
    const moment = momentOf(await stateOf(this.agent, this.id), { absent: 'old', running: 'new' })
    if (moment === 'new') await new TestCapsule(this.agent.client, this.id).output('true')
    return moment
  }

  override async cleanUp(_subject: Subject): Promise<void> {
    await this.agent.client.destroyCapsule({ capsuleId: this.id })
  }
}

export class CreateHot extends Create {
  override readonly title = 'a create that claims a waiting guest'
  override readonly steps = [step('create:claimed', 'old')]
  override readonly env = { WRENN_HOT_POOL_MAX: '1', WRENN_HOT_POOL_MIN: '1' }

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await eventually('a waiting guest', async () => {
      const { pools } = await this.agent.client.getHost({})
      return pools.some(({ hot }) => hot > 0) ? true : undefined
    })
  }
}

export class CreateFromSnapshot extends Create {
  override readonly title = 'a create from a snapshot'
  override readonly steps = [step('create:restored', 'old'), killOnly('create:identified', 'old')]
  #snapshotId = ''

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    this.#snapshotId = snapshotIds.create()
    await this.agent.client.createSnapshot({ capsuleId: subject.id, snapshotId: this.#snapshotId })
  }

  override async run(): Promise<void> {
    await create(this.agent, this.id, { snapshotId: this.#snapshotId })
  }

  override async cleanUp(subject: Subject): Promise<void> {
    await super.cleanUp(subject)
    await this.agent.client.deleteSnapshot({ snapshotId: this.#snapshotId })
  }
}

export class Destroy extends Command {
  readonly title = 'a destroy'
  readonly steps = [
    step('destroy:begun', 'new', 'old'),
    step('destroy:released', 'new', 'old'),
    step('destroy:removed', 'new', 'old'),
  ]
  #id = ''

  async prepare(): Promise<void> {
    this.#id = capsuleIds.create()
    await create(this.agent, this.#id)
  }

  async run(): Promise<void> {
    await this.agent.client.destroyCapsule({ capsuleId: this.#id })
  }

  /** One that failed half-way is never usable again; its caller repeats it. */
  async moment(subject: Subject): Promise<Moment> {
    await subject.expectIntact()
    return momentOf(await stateOf(this.agent, this.#id), { stopping: 'old', absent: 'new' })
  }
}

const STORE_KEY = { id: 'chaos-key', key: Buffer.alloc(32, 5) }

abstract class Hibernation extends Command {
  protected stateId = ''
  protected readonly isLazy: boolean = false

  async prepare(subject: Subject): Promise<void> {
    this.stateId = `state-${capsuleIds.create()}`
    await subject.pause()
  }

  protected async store({ id: capsuleId }: Subject): Promise<void> {
    await this.agent.client.storeCapsule({ capsuleId, stateId: this.stateId, key: STORE_KEY })
  }

  protected async free({ id: capsuleId }: Subject): Promise<void> {
    await this.agent.client.freeCapsule({ capsuleId, stateId: this.stateId })
  }

  protected async fetch({ id: capsuleId }: Subject): Promise<void> {
    const ref = { capsuleId, stateId: this.stateId, key: STORE_KEY, attempt: 1n }
    await this.agent.client.fetchCapsule({ ...ref, mayLoadLazily: this.isLazy })
  }
}

export class Store extends Hibernation {
  readonly title = 'a store of a paused state'
  readonly steps = [
    step('store:begun', 'old'),
    step('store:durable', 'old'),
    step('store:saved', 'old'),
    step('store:noted', 'new', 'new'),
  ]

  async run(subject: Subject): Promise<void> {
    await this.store(subject)
  }

  async moment(subject: Subject): Promise<Moment> {
    momentOf(await subject.state(), { paused: 'old' })
    return (await this.agent.record(subject.id)).stored?.stateId === this.stateId ? 'new' : 'old'
  }

  override async cleanUp(subject: Subject): Promise<void> {
    await subject.resume()
  }
}

export class Fetch extends Hibernation {
  readonly title: string = 'a fetch of a stored state'
  readonly steps = [
    step('fetch:begun', 'old'),
    step('fetch:loaded', 'old'),
    step('fetch:adopted', 'old'),
    step('fetch:placed', 'old'),
    step('fetch:noted', 'new', 'new'),
  ]

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await this.store(subject)
    await this.free(subject)
  }

  async run(subject: Subject): Promise<void> {
    await this.fetch(subject)
  }

  async moment(subject: Subject): Promise<Moment> {
    return momentOf(await stateOf(this.agent, subject.id), { absent: 'old', paused: 'new' })
  }

  override async cleanUp(subject: Subject): Promise<void> {
    await subject.resume()
  }
}

/** It has no durable state here, and what is served of its memory must go with it. */
export class FetchLazily extends Fetch {
  override readonly title: string = 'a lazy fetch of a stored state'
  override readonly steps = [
    step('fetch:loaded', 'old'),
    step('fetch:adopted', 'old'),
    step('fetch:served', 'old'),
    step('fetch:placed', 'old'),
    step('fetch:noted', 'new', 'new'),
  ]

  protected override readonly isLazy = true
}

/** Of one that has ended before it had a durable state here. */
export class FetchAgain extends FetchLazily {
  override readonly title = 'another fetch of a state whose load broke'
  override readonly steps = [step('fetch:again', 'old')]

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await this.fetch(subject)
    await subject.resume()
    await this.agent.killLoader(subject.id)
    await subject.untilState('error')
  }

  override async run({ id: capsuleId }: Subject): Promise<void> {
    const ref = { capsuleId, stateId: this.stateId, key: STORE_KEY, attempt: 2n }
    await this.agent.client.fetchCapsule({ ...ref, mayLoadLazily: true })
  }

  override async moment(subject: Subject): Promise<Moment> {
    const { stored } = await this.agent.record(subject.id)
    return stored?.attempt === 2 ? 'new' : 'old'
  }
}

export class Free extends Hibernation {
  readonly title = 'a free of what was stored'
  readonly steps = [step('free:begun', 'old')]

  override async prepare(subject: Subject): Promise<void> {
    await super.prepare(subject)
    await this.store(subject)
  }

  async run(subject: Subject): Promise<void> {
    await this.free(subject)
  }

  async moment(subject: Subject): Promise<Moment> {
    return momentOf(await stateOf(this.agent, subject.id), { paused: 'old', absent: 'new' })
  }

  override async cleanUp(subject: Subject): Promise<void> {
    await this.fetch(subject)
    await subject.resume()
  }
}

async function stateOf({ client }: HostAgent, capsuleId: string): Promise<string> {
  const call = client.getCapsule({ capsuleId })
  const found = await call.catch(() => undefined)
  if (found?.capsule !== undefined) return found.capsule.state
  const code = await failure(client.getCapsule({ capsuleId }))
  if (code !== 'capsule_not_found') throw new Error(`Asking for a capsule failed with ${code}.`)
  return 'absent'
}

function momentOf(found: string, moments: Readonly<Record<string, Moment>>): Moment {
  const moment = moments[found]
  if (moment === undefined) throw new Error(`Found ${found}, not ${Object.keys(moments).join(' or ')}.`)
  return moment
}
