import { capsuleIds, checkpointIds } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { engines } from '../e2e/harness/host.js'
import { audit } from './harness/audit.js'
import { untilDurable } from './harness/commands.js'
import type { Subject } from './harness/subject.js'
import { refusal, World } from './harness/world.js'

const world = new World().use()
const { agent, site } = world

/** Runs `command`, and kills engines at the very moment it has reached `step`. */
async function killAt(
  step: string,
  command: () => Promise<unknown>,
  victims: () => Promise<readonly number[]>,
): Promise<unknown> {
  await agent.arm(step, 'stop')
  const running = command().catch((error: unknown) => error)
  await agent.stopped()
  try {
    for (const pid of await victims()) process.kill(pid, 'SIGKILL')
  } finally {
    agent.goOn()
  }
  return await running
}

const enginesOf = async (subject: Subject): Promise<number[]> =>
  (await engines(site.dir)).filter(({ vmId }) => vmId.startsWith(subject.id)).map(({ pid }) => pid)
/** The engine that was launched last: the one of a rollback that is being prepared. */
const newestOf = async (subject: Subject): Promise<number[]> =>
  (await enginesOf(subject)).sort((a, b) => a - b).slice(-1)

async function expectHonestEnd(subject: Subject): Promise<void> {
  await world.untilState(subject, 'error')
  const { capsule } = await agent.client.getCapsule({ capsuleId: subject.id })
  expect(capsule?.exit).toMatchObject({ cause: 'killed', signal: 'SIGKILL' })
}

async function expectOthersWell(subject: Subject): Promise<void> {
  await world.bystander.expectIntact()
  await world.destroy(subject)
  expect(await audit(site, agent)).toEqual({ illegal: [], leaked: [] })
}

describe('when the engine of a capsule is killed', () => {
  for (const step of ['pause:begun', 'pause:stopped']) {
    it(`at ${step}, the pause fails, the capsule says that it was killed, and the others go on`, async () => {
      const subject = await world.subject()
      await killAt(
        step,
        () => subject.pause(),
        () => enginesOf(subject),
      )
      await expectHonestEnd(subject)
      expect(await refusal(subject.resume())).toMatchObject({ code: 'invalid_state' })
      await expectOthersWell(subject)
    })
  }

  for (const step of ['pause:saved', 'pause:committed']) {
    it(`at ${step}, the saved state is complete and resumes`, async () => {
      const subject = await world.subject()
      await killAt(
        step,
        () => subject.pause(),
        () => enginesOf(subject),
      )
      expect(await subject.state()).toBe('paused')
      await subject.resume()
      await subject.expectIntact()
      await expectOthersWell(subject)
    })
  }

  it('at resume:restored, the state stays and resumes', async () => {
    const subject = await world.subject()
    await subject.pause()
    await untilDurable(agent, subject.id)
    await killAt(
      'resume:restored',
      () => subject.resume(),
      () => enginesOf(subject),
    )
    expect(await subject.state()).toBe('paused')
    await subject.resume()
    await subject.expectIntact()
    await expectOthersWell(subject)
  })

  it('after a resume, the capsule goes on from its durable state when it is resumed again, and says so', async () => {
    const subject = await world.subject()
    await subject.pause()
    await untilDurable(agent, subject.id)
    await subject.resume()
    await world.killEngine(subject.id)
    await expectHonestEnd(subject)
    await subject.resume()
    const { capsule } = await agent.client.getCapsule({ capsuleId: subject.id })
    expect(capsule?.notice).toContain('went on from the state saved at')
    await subject.expectIntact()
    await expectOthersWell(subject)
  })

  it('while a rollback prepares the next guest, the old one goes on', async () => {
    const subject = await world.subject()
    const checkpointId = checkpointIds.create()
    await subject.mark('before')
    await agent.client.createCheckpoint({ capsuleId: subject.id, checkpointId })
    await subject.mark('after')
    const rollback = () => agent.client.rollbackCapsule({ capsuleId: subject.id, checkpointId })
    for (const step of ['rollback:restored', 'rollback:switched']) {
      await killAt(step, rollback, () => newestOf(subject))
      expect(await subject.state()).toBe('running')
      expect(await subject.marked()).toBe('after')
      await subject.expectIntact()
    }
    await rollback()
    expect(await subject.marked()).toBe('before')
    await expectOthersWell(subject)
  })

  it('that a rollback is about to give up, the next one runs', async () => {
    const subject = await world.subject()
    const checkpointId = checkpointIds.create()
    await subject.mark('before')
    await agent.client.createCheckpoint({ capsuleId: subject.id, checkpointId })
    await subject.mark('after')
    const oldest = async () => (await enginesOf(subject)).sort((a, b) => a - b).slice(0, 1)
    const rollback = () => agent.client.rollbackCapsule({ capsuleId: subject.id, checkpointId })
    await killAt('rollback:restored', rollback, oldest)
    // Whether the host noticed in time or refused: asked for again, it is where it should be.
    await rollback()
    expect(await subject.state()).toBe('running')
    expect(await subject.marked()).toBe('before')
    subject.forgetCount()
    await subject.expectIntact()
    await expectOthersWell(subject)
  })

  it('while a fork starts its copies, none is made and the source goes on', async () => {
    const subject = await world.subject()
    const capsuleId = capsuleIds.create()
    const copies = [{ capsuleId, hostname: 'copy', generation: 1n }]
    const copy = async () => (await engines(site.dir)).filter(({ vmId }) => vmId === capsuleId).map(({ pid }) => pid)
    const fork = () => agent.client.forkCapsule({ capsuleId: subject.id, copies })
    expect(await killAt('fork:restored', fork, copy)).toBeInstanceOf(Error)
    await subject.expectIntact()
    await fork()
    await agent.client.destroyCapsule({ capsuleId })
    await expectOthersWell(subject)
  })
})
