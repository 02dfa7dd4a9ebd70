import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest'
import { Api } from '../e2e/harness/api.js'
import { type Platform, pidsOf, up, withKey, wrenn } from '../e2e/harness/platform.js'
import { type BuildCase, buildCases } from './harness/build-cases.js'
import { Builder } from './harness/builder.js'

const site = inject('site')
const isAll = process.env.WRENN_CHAOS_ALL === '1'
let platform: Platform
let builder: Builder
/** What an undisturbed build makes. */
let digest: string

beforeAll(async () => {
  const url = `http://127.0.0.1:${site.port}`
  const stepFile = await Builder.prepare(join(dirname(site.stepFile), 'steps'))
  const env = {
    ...site.env,
    WRENN_STEP_FILE: stepFile,
    WRENN_BUILD_CACHE_RESULTS: '1000',
    WRENN_API_URL: url,
    TERM: 'dumb',
  }
  const unstarted = { ...site, url, log: join(site.artefacts, 'up.log'), env }
  await up(unstarted)
  platform = await withKey(unstarted)
  builder = new Builder(new Api(platform), platform, stepFile)
  expect(await builder.build('undisturbed')).toMatchObject({ state: 'ready', cached: 0 })
  digest = await builder.digest('undisturbed')
  await builder.expectNothingLeft()
})
afterEach(async () => {
  // A test that failed may have left one of them at a step.
  await builder.disarm()
  const pids = await pidsOf(platform)
  for (const name of ['host-agent', 'control-plane']) if (pids[name] !== undefined) process.kill(pids[name], 'SIGCONT')
})
afterAll(async () => {
  await wrenn(platform, ['down', '--stop-capsules'])
})

const titled = (one: BuildCase) => ({
  ...one,
  recipe: `${one.victim}-${one.at}`.replace(/\W/g, '-').replaceAll('_', '-'),
})

describe('a build', () => {
  it.each(buildCases.filter(({ isUsual }) => isAll || isUsual).map(titled))(
    'whose $victim is killed at $at goes on or fails with a sentence; the next one is what an undisturbed one is',
    async ({ recipe, ...one }) => {
      const broken = await builder.ended(await builder.broken(recipe, one))
      expect(['ready', 'error'], broken.text).toContain(broken.state)
      if (broken.state === 'error') expect(broken.reason).toMatch(/\w.*\.$/)
      // Whoever has the build's work in its memory takes it away; the others are started again and go on.
      if (one.victim !== 'engine' && one.victim !== 'sandbox') expect(broken.state, broken.text).toBe('ready')
      if (broken.state === 'ready') expect(await builder.digest(recipe)).toBe(digest)
      const again = await builder.build(recipe, one.isOfImage)
      expect([again.state, await builder.digest(recipe)], again.text).toEqual(['ready', digest])
      if (broken.state === 'ready') expect(again.cached, again.text).toBe(2)
      await builder.expectNothingLeft()
    },
  )

  it('does a step again whose saved disk was changed, and one that its host has lost, and says so', async () => {
    const before = await builder.saved()
    expect((await builder.build('poisoned')).state).toBe('ready')
    const [, first = '', second = ''] = await builder.savedSince(before)
    await builder.poison(second, 'original-content', 'poisoned-content')
    const again = await builder.build('poisoned')
    expect([again.state, again.cached], again.text).toEqual(['ready', 1])
    expect(again.text).toMatch(/What was kept of .* cannot be used.* disk\.raw is damaged/)
    expect(await builder.digest('poisoned')).toBe(digest)
    await builder.expectNothingLeft()
    const kept = await builder.savedSince([...before, first])
    await builder.lose(kept.at(-2) ?? '')
    const last = await builder.build('poisoned')
    expect([last.state, last.cached], last.text).toEqual(['ready', 1])
    expect(last.text).toContain('There is no snapshot')
    expect(await builder.digest('poisoned')).toBe(digest)
    await builder.expectNothingLeft()
  })
})
