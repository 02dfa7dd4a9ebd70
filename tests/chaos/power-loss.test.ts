import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { checkpointIds } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { engines, entries } from '../e2e/harness/host.js'
import { eventually } from '../e2e/harness/wait.js'
import { audit } from './harness/audit.js'
import { untilDurable } from './harness/commands.js'
import type { Subject } from './harness/subject.js'
import { refusal, World } from './harness/world.js'

const world = new World().use()
const { agent, site } = world

/**
 * As the host comes back after a power loss: every process is gone, and the journal is of another boot. What had not reached
 * the disk is taken away by `lose`.
 */
async function losePower(lose: () => Promise<void> = async () => {}): Promise<void> {
  await agent.signal('SIGKILL')
  for (const { pid } of await engines(site.dir)) process.kill(pid, 'SIGKILL')
  await eventually('every engine to be gone', async () => ((await engines(site.dir)).length === 0 ? true : undefined))
  for (const name of await entries(join(site.dir, 'journal'))) {
    const path = join(site.dir, 'journal', name)
    await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), bootId: 'another boot' }))
  }
  await lose()
  await agent.start()
}

const fileOf = async (subject: Subject, name: string): Promise<string> =>
  join(site.dir, 'pool/capsules', subject.id, String((await agent.record(subject.id)).files), name)

async function noticeOf(subject: Subject): Promise<string> {
  return (await agent.client.getCapsule({ capsuleId: subject.id })).capsule?.notice ?? ''
}

async function finish(subject: Subject): Promise<void> {
  await subject.resume()
  await subject.expectIntact()
  await world.destroy(subject)
}

describe('after a power loss', () => {
  it('a paused capsule whose state was durable is as it was, without a word', async () => {
    const subject = await world.subject()
    await subject.pause()
    await untilDurable(agent, subject.id)
    await losePower()
    expect(await subject.state()).toBe('paused')
    expect(await noticeOf(subject)).toBe('')
    await finish(subject)
  })

  it('a running capsule is on its newest durable state, and says so', async () => {
    const subject = await world.subject()
    await subject.mark('durable')
    await subject.pause()
    await untilDurable(agent, subject.id)
    await subject.resume()
    await subject.mark('newer')
    subject.forgetCount()
    await losePower()
    expect(await subject.state()).toBe('paused')
    expect(await noticeOf(subject)).toMatch(/went back to the state saved at .*, because its host restarted/)
    await subject.resume()
    expect(await subject.marked()).toBe('durable')
    await finish(subject)
  })

  it('a capsule that was paused anew is on the durable state before, when the new one is lost', async () => {
    const subject = await world.subject()
    await subject.mark('durable')
    await subject.pause()
    await untilDurable(agent, subject.id)
    await subject.resume()
    await subject.mark('newer')
    subject.forgetCount()
    await agent.arm('pause:committed', 'kill')
    await subject.pause().catch(() => {})
    const lost = await fileOf(subject, 'mem')
    await losePower(async () => await rm(lost))
    expect(await noticeOf(subject)).toContain('went back to the state saved at')
    await subject.resume()
    expect(await subject.marked()).toBe('durable')
    await finish(subject)
  })

  it('a running capsule that was never paused is on its newest durable checkpoint', async () => {
    const subject = await world.subject()
    const checkpointId = checkpointIds.create()
    await subject.mark('durable')
    await agent.client.createCheckpoint({ capsuleId: subject.id, checkpointId })
    await eventually('the checkpoint to be durable', async () => {
      const { checkpoints } = await agent.client.listCheckpoints({ capsuleId: subject.id })
      return (checkpoints[0]?.durableAtMs ?? 0n) > 0n ? true : undefined
    })
    await subject.mark('newer')
    subject.forgetCount()
    await losePower()
    expect(await noticeOf(subject)).toContain('went back to the state saved at')
    await subject.resume()
    expect(await subject.marked()).toBe('durable')
    await finish(subject)
  })

  it('a capsule of which nothing was saved has ended and says why, and nothing is left of anybody', async () => {
    const subject = await world.subject()
    await losePower()
    const { capsule } = await agent.client.getCapsule({ capsuleId: subject.id })
    expect(capsule).toMatchObject({ state: 'error', exit: { message: expect.stringContaining('The host restarted') } })
    expect(await refusal(subject.resume())).toMatchObject({ code: 'invalid_state' })
    await world.destroy(subject)
    expect(await audit(site, agent)).toEqual({ illegal: [], leaked: [] })
  })
})
