import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { audit } from './harness/audit.js'
import { buildCases } from './harness/build-cases.js'
import {
  Checkpoint,
  type Command,
  Create,
  CreateFromSnapshot,
  CreateHot,
  Destroy,
  Diff,
  Fetch,
  FetchAgain,
  FetchLazily,
  Fork,
  Free,
  type Moment,
  Pause,
  ResumeDurable,
  ResumeFromDisk,
  ResumeInPlace,
  Rollback,
  RollbackEnded,
  RollbackPaused,
  Snapshot,
  type Step,
  Store,
} from './harness/commands.js'
import { HostAgent } from './harness/host-agent.js'
import { formatOutcomes, type Outcome } from './harness/report.js'
import { Subject } from './harness/subject.js'

const site = inject('site')
const agent = new HostAgent(site)
const canLoadLazily = site.withoutStore === undefined && existsSync('/dev/fuse')
if (!canLoadLazily) process.stdout.write('Steps of lazy fetches are left out: no object store, or no /dev/fuse.\n')
const commands: readonly Command[] = [
  new Pause(agent),
  new ResumeInPlace(agent),
  new ResumeDurable(agent),
  new ResumeFromDisk(agent),
  new Checkpoint(agent),
  new Rollback(agent),
  new RollbackPaused(agent),
  new RollbackEnded(agent),
  new Fork(agent),
  new Snapshot(agent),
  new Diff(agent),
  new Create(agent),
  new CreateFromSnapshot(agent),
  new CreateHot(agent),
  new Destroy(agent),
  ...(site.withoutStore === undefined ? [new Store(agent), new Fetch(agent), new Free(agent)] : []),
  ...(canLoadLazily ? [new FetchLazily(agent), new FetchAgain(agent)] : []),
]
if (site.withoutStore !== undefined) process.stdout.write(`Steps of hibernation are left out: ${site.withoutStore}\n`)
/** A resume is only in place while its state is not durable yet, which is a matter of a second. */
const MAX_ATTEMPTS = 5

const outcomes: Outcome[] = []
let subject: Subject | undefined

beforeAll(async () => {
  await agent.start()
})
afterAll(async () => {
  await agent[Symbol.asyncDispose]()
  process.stdout.write(`\n${formatOutcomes(outcomes)}`)
})

/** A running capsule that has its witnesses: the last one, unless a case has lost it. */
async function usable(): Promise<Subject> {
  const state = await subject?.state().catch(() => 'lost')
  if (subject !== undefined && state === 'running') return subject
  for (const { capsuleId } of (await agent.client.listCapsules({})).capsules) {
    await agent.client.destroyCapsule({ capsuleId })
  }
  subject = await Subject.create(agent)
  return subject
}

/** Runs the command until it has reached the step, and puts the host agent back on its feet. */
async function breakAt(command: Command, one: Subject, step: string, action: 'kill' | 'fail'): Promise<void> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    await command.prepare(one)
    await agent.arm(step, action)
    const failed = await command.run(one).then(
      () => false,
      () => true,
    )
    if (agent.isArmed()) {
      await agent.disarm()
      await command.cleanUp(one)
      continue
    }
    expect(failed).toBe(true)
    if (action === 'fail') return
    expect(await agent.ended()).toBe('SIGKILL')
    await agent.start(command.env)
    return
  }
  throw new Error(`${command.title} never reached ${step}.`)
}

async function run(command: Command, step: Step, action: 'kill' | 'fail', outcome: Outcome): Promise<Moment> {
  const one = await usable()
  await breakAt(command, one, step.name, action)
  const expected = action === 'kill' ? step.afterKill : step.afterFail
  outcome.illegal.push('not known yet')
  const found = await command.moment(one)
  outcome.found = found
  outcome.illegal.pop()
  if (found !== expected) outcome.illegal.push(`found ${found}, not ${expected}`)
  const isBroken = command instanceof Destroy && found === 'old' // it cannot settle before it is repeated
  const after = isBroken ? { illegal: [], leaked: [] } : await audit(site, agent)
  outcome.illegal.push(...after.illegal)
  outcome.leaked.push(...after.leaked)
  outcome.lost.push('not known yet')
  await command.run(one)
  expect(await command.moment(one)).toBe('new')
  await command.cleanUp(one)
  await one.expectIntact()
  outcome.lost.pop()
  const end = await audit(site, agent)
  outcome.illegal.push(...end.illegal)
  outcome.leaked.push(...end.leaked)
  return found
}

async function runRecorded(command: Command, step: Step, action: 'kill' | 'fail'): Promise<Outcome> {
  const started = performance.now()
  const outcome: Outcome = {
    ...{ command: command.title, step: step.name, action, found: '-', ms: 0 },
    ...{ lost: [], leaked: [], illegal: [] },
  }
  outcomes.push(outcome)
  try {
    await run(command, step, action, outcome)
    return outcome
  } catch (error) {
    subject = undefined // whatever it is now, the next case starts from a fresh one
    const text = error instanceof Error ? error.message : String(error)
    throw new Error(`${text}\nThe host agent's log ends with:\n${agent.logTail()}`, { cause: error })
  } finally {
    outcome.ms = performance.now() - started
  }
}

for (const command of commands) {
  describe(command.title, () => {
    beforeAll(async () => {
      if (Object.keys(command.env).length > 0) await agent.restart(command.env)
    })
    afterAll(async () => {
      if (Object.keys(command.env).length > 0) await agent.restart()
    })
    for (const step of command.steps) {
      for (const action of step.afterFail === undefined ? (['kill'] as const) : (['fail', 'kill'] as const)) {
        const what = action === 'kill' ? 'whose host agent dies' : 'that fails'
        it(`${what} at ${step.name} is undone or complete, and can be repeated`, async () => {
          const { lost, leaked, illegal } = await runRecorded(command, step, action)
          expect({ lost, leaked, illegal }).toEqual({ lost: [], leaked: [], illegal: [] })
        })
      }
    }
  })
}

describe('the table of steps', () => {
  it('has every step that the host agent can reach', async () => {
    const ofBuilds = buildCases.map(({ at }) => at).filter((at) => at.startsWith('image:'))
    const covered = new Set([...commands.flatMap(({ steps }) => steps.map(({ name }) => name)), ...ofBuilds])
    const reached = await stepsOf(join(import.meta.dirname, '../../apps/host-agent/src'))
    const isLeftOut = (name: string): boolean => site.withoutStore !== undefined && /^(?:store|fetch|free):/.test(name)
    const isLazy = (name: string): boolean => !canLoadLazily && /^fetch:(?:served|again)$/.test(name)
    const isMissing = (name: string): boolean => !covered.has(name) && !isLeftOut(name) && !isLazy(name)
    expect([...reached].filter(isMissing)).toEqual([])
    expect([...covered].filter((name) => !reached.has(name))).toEqual([])
  })
})

/** Steps in the sources; those of a capture are named after what it is made for. */
async function stepsOf(folder: string): Promise<Set<string>> {
  const files = (await readdir(folder, { recursive: true })).filter((name) => /(?<!\.test)\.ts$/.test(name))
  const source = (await Promise.all(files.map((name) => readFile(join(folder, name), 'utf8')))).join('\n')
  const makers = [...source.matchAll(/capture\([^)]*name: '(\w+)'/g)].map(([, name = '']) => name)
  const names = [...source.matchAll(/reach\(([`'])(.+?)\1\)/g)].map(([, , name = '']) => name)
  // biome-ignore lint/suspicious/noTemplateCurlyInString: it is text of the sources
  return new Set(names.flatMap((name) => makers.map((maker) => name.replace('${name}', maker))))
}
