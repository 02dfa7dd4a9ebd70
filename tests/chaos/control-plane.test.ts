import { randomUUID } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Capsule, Checkpoint } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { type Answer, Api, TestCapsule } from '../e2e/harness/api.js'
import { capsuleTraces } from '../e2e/harness/host.js'
import { type Platform, pidsOf, up, withKey, wrenn } from '../e2e/harness/platform.js'
import { eventually } from '../e2e/harness/wait.js'

const CLIENTS = 8
const site = inject('site')
let platform: Platform
let api: Api

beforeAll(async () => {
  const url = `http://127.0.0.1:${site.port}`
  const log = join(site.artefacts, 'up.log')
  const unstarted = { ...site, url, log, env: { ...site.env, WRENN_API_URL: url, TERM: 'dumb' } }
  await up(unstarted)
  platform = await withKey(unstarted)
  api = new Api(platform)
})
afterAll(async () => {
  await rm(site.stepFile, { force: true })
  process.kill(await pidOf('host-agent'), 'SIGCONT') // a test that failed may have left it at a step
  await wrenn(platform, ['down', '--stop-capsules'])
})

/** A command that eight clients send at once, and the step of the host agent at which the control plane dies. */
interface Command {
  readonly verb: string
  readonly step: string
  readonly method: string
  readonly path: string
  readonly json?: object
  /** What all clients must have been told. */
  readonly told: (answer: Answer) => unknown
  readonly check: () => Promise<void>
}

/** As the SDK does: the same request with the same key, until somebody answers. */
async function insist({ method, path, json }: Command, key: string): Promise<Answer> {
  return await eventually(
    `an answer to ${method} ${path}`,
    async () => {
      const headers = { 'idempotency-key': key }
      const query = method === 'DELETE' ? {} : { wait_sec: '120' }
      const call = api.call(method, path, { query, headers, ...(json === undefined ? {} : { json }) })
      const answer = await call.catch(() => undefined)
      return answer === undefined || answer.status >= 500 ? undefined : answer
    },
    180_000,
  )
}

/** Of a process that may be being started again. */
async function pidOf(name: string): Promise<number> {
  return await eventually(`the ${name}`, async () => (await pidsOf(platform))[name])
}

/** Kills the control plane while the host agent stands at `step`. */
async function killControlPlaneAt(step: string): Promise<void> {
  const hostAgent = await pidOf('host-agent')
  await eventually(`the host agent to stop at ${step}`, async () =>
    (await readFile(`/proc/${hostAgent}/stat`, 'utf8')).includes(') T ') ? true : undefined,
  )
  try {
    const killed = await pidOf('control-plane')
    process.kill(killed, 'SIGKILL')
    await eventually('another control plane', async () =>
      (await pidOf('control-plane')) === killed ? undefined : true,
    )
  } finally {
    process.kill(hostAgent, 'SIGCONT')
  }
  await eventually('the control plane to answer', async () => {
    const answer = await fetch(new URL('/ready', platform.url)).catch(() => undefined)
    return answer?.status === 200 ? true : undefined
  })
}

async function make(name: string): Promise<TestCapsule> {
  const capsule = await api.create({ name })
  await capsule.text(`echo ${capsule.id} > /dev/shm/nonce`)
  return capsule
}

async function expectNonce(capsule: TestCapsule, nonce = capsule.id): Promise<void> {
  expect(await capsule.text('cat /dev/shm/nonce')).toBe(nonce)
}

const stateOf = (answer: Answer): string => answer.json<Capsule>().state
const move = async (capsule: TestCapsule, verb: string, json?: object): Promise<Answer> =>
  await api.call('POST', `${capsule.path}/${verb}`, {
    query: { wait_sec: '120' },
    ...(json === undefined ? {} : { json }),
  })

/** One capsule per command, ready for it. */
async function prepare(): Promise<Command[]> {
  const [paused, resumed, forked, rolledBack, snapshotted, destroyed] = await Promise.all(
    ['pause', 'resume', 'fork', 'rollback', 'snapshot', 'destroy'].map(make),
  )
  if (!paused || !resumed || !forked || !rolledBack || !snapshotted || !destroyed) throw new Error('Six were made.')
  await move(resumed, 'pause')
  const checkpoint = (await move(rolledBack, 'checkpoints', {})).json<Checkpoint>()
  await rolledBack.text('echo changed > /dev/shm/nonce')
  const made: { id?: string } = {}
  const snapshot = `chaos-${randomUUID().slice(0, 8)}`
  const name = `made-${randomUUID()}`
  return [
    {
      ...{ verb: 'create', step: 'create:restored', method: 'POST', path: '/v1/capsules', json: { name } },
      told: (answer) => {
        made.id = answer.json<Capsule>().id
        return made.id
      },
      check: async () => {
        const named = (await api.list({ status: 'all' })).filter((one) => one.name === name)
        expect(named.map(({ id }) => id)).toEqual([made.id])
        const capsule = new TestCapsule(api, await api.json<Capsule>('GET', `/v1/capsules/${made.id}`))
        await capsule.untilState('running')
        expect(await capsule.text('echo works')).toBe('works')
      },
    },
    {
      ...{ verb: 'pause', step: 'pause:saved', method: 'POST', path: `${paused.path}/pause`, told: stateOf },
      check: async () => {
        expect((await paused.get()).state).toBe('paused')
        await move(paused, 'resume')
        await expectNonce(paused)
      },
    },
    {
      ...{ verb: 'resume', step: 'resume:restored', method: 'POST', path: `${resumed.path}/resume`, told: stateOf },
      check: async () => {
        expect((await resumed.get()).state).toBe('running')
        await expectNonce(resumed)
      },
    },
    {
      ...{ verb: 'fork', step: 'fork:restored', method: 'POST', path: `${forked.path}/fork`, json: { count: 2 } },
      told: (answer) => answer.json<{ capsules: Capsule[] }>().capsules.map(({ id }) => id),
      check: async () => {
        const copies = (await api.list({ status: 'all' })).filter(({ parent_id }) => parent_id === forked.id)
        expect(copies.map(({ state }) => state)).toEqual(['running', 'running'])
        for (const copy of copies) await expectNonce(new TestCapsule(api, copy), forked.id)
        await expectNonce(forked)
      },
    },
    {
      ...{ verb: 'rollback', step: 'rollback:restored', method: 'POST', told: stateOf },
      path: `${rolledBack.path}/checkpoints/${checkpoint.id}/rollback`,
      check: async () => await expectNonce(rolledBack),
    },
    {
      ...{ verb: 'snapshot', step: 'snapshot:cloned', method: 'POST', path: '/v1/snapshots' },
      json: { capsule_id: snapshotted.id, name: snapshot },
      told: (answer) => answer.json<{ name: string }>().name,
      check: async () => {
        await expectNonce(snapshotted)
        const started = await api.create({ template: snapshot })
        await expectNonce(started, snapshotted.id)
        await started.destroy()
        await api.json('DELETE', `/v1/snapshots/${snapshot}`)
      },
    },
    {
      ...{ verb: 'destroy', step: 'destroy:released', method: 'DELETE', path: destroyed.path },
      told: ({ status }) => status < 300,
      check: async () => {
        await destroyed.untilState('stopped')
      },
    },
  ]
}

describe('when the control plane is killed in the middle of a command', () => {
  it('the next one finishes it, and every client gets one answer, the same', async () => {
    const commands = await prepare()
    const running: Promise<Answer[]>[] = []
    for (const command of commands) {
      await writeFile(site.stepFile, `${command.step} stop\n`)
      const key = randomUUID()
      const clients = Array.from({ length: CLIENTS }, () => insist(command, key))
      running.push(Promise.all(clients))
      await killControlPlaneAt(command.step)
    }
    const answers = await Promise.all(running)
    for (const [at, command] of commands.entries()) {
      const given = answers[at] ?? []
      const refused = given.filter(({ status }) => status >= 300).map(({ bytes }) => `${command.verb}: ${bytes}`)
      expect(refused).toEqual([])
      expect(new Set(given.map((answer) => JSON.stringify(command.told(answer)))).size).toBe(1)
    }
    for (const command of commands) await command.check()
    await expectNothingLeft()
  })
})

describe('when the host agent is killed in the middle of a command', () => {
  it('the control plane carries the command to its end', async () => {
    for (const command of await prepare()) {
      const killed = await pidOf('host-agent')
      await writeFile(site.stepFile, `${command.step} kill\n`)
      const answer = await insist(command, randomUUID())
      expect([command.verb, answer.status < 300, answer.status < 300 || answer.bytes.toString()]).toEqual([
        command.verb,
        true,
        true,
      ])
      command.told(answer)
      expect(await pidOf('host-agent')).not.toBe(killed)
      await command.check()
    }
    await expectNothingLeft()
  })
})

async function expectNothingLeft(): Promise<void> {
  for (const { id } of await api.list()) await api.call('DELETE', `/v1/capsules/${id}`)
  let seen = ''
  await eventually(
    () => `nothing to be left of any capsule; last seen: ${seen}`,
    async () => {
      const traces = await capsuleTraces(platform)
      seen = JSON.stringify(traces)
      return Object.values(traces).every((names) => names.length === 0) ? true : undefined
    },
  )
}
