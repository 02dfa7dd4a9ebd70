import { describe, expect, it } from 'vitest'
import { type Answer, TestCapsule, usePlatform } from '../harness/api.js'
import { capsuleTraces } from '../harness/host.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()
const CLIENTS = 8
const query = { wait_sec: '120' }

type Step = (capsule: TestCapsule) => Promise<Answer>
const post =
  (verb: string, json?: object): Step =>
  (capsule) =>
    api.call('POST', `${capsule.path}/${verb}`, { query, ...(json === undefined ? {} : { json }) })
/** What each client does, one after another; they begin at different places. */
const rounds: readonly Step[] = [
  post('pause'),
  post('resume'),
  post('fork', { count: 1, name: 'race' }),
  post('resume'),
  post('checkpoints', {}),
  post('pause'),
]
const refusals = ['invalid_state', 'conflict', 'in_use', 'capsule_not_found']

function isLegal({ status, bytes }: Answer): boolean {
  if (status < 300) return true
  const { error } = JSON.parse(bytes.toString()) as { error: { code: string; message: string } }
  return refusals.includes(error.code) && error.message.endsWith('.')
}

async function copiesOf(source: TestCapsule): Promise<TestCapsule[]> {
  const all = await api.list({ status: 'all' })
  return all
    .filter(({ parent_id, state }) => parent_id === source.id && state !== 'stopped')
    .map((copy) => new TestCapsule(api, copy))
}

describe('eight clients that move one capsule at once', () => {
  it('get one answer each, and leave it in a legal state in which it works', async () => {
    await using capsule = await api.create({ name: 'race' })
    await capsule.text('echo kept > /dev/shm/kept')
    const client = async (first: number): Promise<Answer[]> => {
      const answers: Answer[] = []
      for (let at = 0; at < rounds.length; at++) {
        const step = rounds[(first + at) % rounds.length]
        if (step !== undefined) answers.push(await step(capsule))
      }
      return answers
    }
    try {
      const answers = (await Promise.all(Array.from({ length: CLIENTS }, (_, first) => client(first)))).flat()
      expect(answers.length).toBe(CLIENTS * rounds.length)
      expect(answers.filter((answer) => !isLegal(answer)).map(({ bytes }) => bytes.toString())).toEqual([])
      const { state } = await capsule.get()
      expect(['running', 'paused']).toContain(state)
      const copies = await copiesOf(capsule)
      const forked = answers.filter(({ status, bytes }) => status === 201 && bytes.includes('"capsules"'))
      expect(copies.length).toBe(forked.length)
      if (state === 'paused') await capsule.resume()
      const all = await Promise.all([capsule, ...copies].map((one) => one.text('cat /dev/shm/kept')))
      expect(new Set(all)).toEqual(new Set(['kept']))
    } finally {
      // Also of a run that failed: what comes after it counts the capsules of its team.
      for (const copy of await copiesOf(capsule)) await copy.destroy()
    }
  })

  it('may destroy it meanwhile: then it is gone, and so is everything that belonged to it', async () => {
    const capsule = await api.create({ name: 'race to the end' })
    const destroy: Step = ({ path }) => api.call('DELETE', path)
    const steps = [...rounds, destroy, destroy]
    const answers = await Promise.all(steps.map((step) => step(capsule)))
    expect(answers.filter((answer) => !isLegal(answer)).map(({ bytes }) => bytes.toString())).toEqual([])
    await capsule.untilState('stopped')
    for (const copy of await copiesOf(capsule)) await copy.destroy()
    await eventually('nothing to be left of it', async () => {
      const traces = JSON.stringify(await capsuleTraces(platform))
      return traces.includes(capsule.id) ? undefined : true
    })
  })
})
