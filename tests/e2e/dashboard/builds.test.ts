import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import {
  expectAccessible,
  openBeside,
  openViewer,
  PATIENT,
  signIn,
  type Tab,
  useBrowser,
  visit,
} from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
const anonymous = new Api(platform, '')
const BUILDS = '/dashboard/templates/builds'
/** Builds on an emulated machine, two suites beside. */
const BUSY_MS = 600_000
const first = ['FROM base', 'COPY greeting ./', 'RUN for i in $(seq 300); do echo "said $i"; done; cat greeting']
let tab: Tab
let owner: ReturnType<typeof bearer>
let team = ''
/** Of the first build. */
let path = ''

const pathOf = ({ page }: Tab) => new URL(page.url()).pathname
const text = () => tab.page.getByRole('textbox', { name: 'Dockerfile' })
const state = (name: string) => tab.page.locator(`header [data-build-state=${name}]`)
const phase = (key: string) => tab.page.locator(`[data-phase="${key}"]`)
const files = (...names: readonly string[]) =>
  names.map((name) => ({ name, mimeType: 'text/plain', buffer: Buffer.from('hello from the page\n') }))

/** Fills the form and sends it. @returns where the page of the build is */
async function build(name: string, lines: readonly string[]): Promise<string> {
  const { page } = tab
  await visit(tab, platform, `${BUILDS}/new`)
  await page.getByLabel('Name').fill(name)
  await text().fill(lines.join('\n'))
  await page.locator('input[aria-label="Files for COPY"]').setInputFiles(files('greeting'))
  await page.getByText('1 file,').waitFor()
  await page.getByRole('button', { name: 'Build', exact: true }).click()
  await page.waitForURL(/\/builds\/bld-/, PATIENT)
  return pathOf(tab)
}

/** Builds, by the page alone; each test goes on with what the one before has built. */
describe.skipIf(noBrowser !== '')(`the pages of builds ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
    const { email } = await addPerson(platform, 'Bertha')
    const session = await logIn(platform, email)
    owner = bearer(session)
    team = session.team_id ?? ''
    tab = await browser.open()
    await signIn(tab, platform, email)
  })

  /** Templates go with their team, and what builds keep of their steps. */
  afterAll(async () => {
    if (team !== '') await anonymous.json('DELETE', `/v1/teams/${team}`, owner)
  })

  it('teach how to begin, and say what of a Dockerfile is refused beside its line', async () => {
    const { page, problems } = tab
    await page.getByRole('link', { name: 'Templates' }).click()
    await page.getByRole('link', { name: 'Builds', exact: true }).click()
    await page.getByRole('heading', { name: 'No builds yet' }).waitFor()
    await expectAccessible(tab)
    await page.getByRole('link', { name: 'Build the first one' }).click()
    await page.getByRole('heading', { name: 'New build' }).waitFor()
    await page.getByLabel('Name').fill('greeter')
    await text().fill('FROM base\nONBUILD RUN x\nRUN --mount=type=secret,id=npm x\nCOPY nothing /srv/')
    await page.locator('[data-problem="4"]').waitFor()
    await page.getByLabel('Secret npm').waitFor()
    await page.locator('[data-problem="2"]').getByText('Line 2: ONBUILD is not supported').waitFor()
    expect(await page.locator('[data-refused]').count()).toBe(2)
    await expectAccessible(tab)
    await page.locator('[data-problem="4"]').click()
    expect(
      await text().evaluate((area: HTMLTextAreaElement) => area.value.slice(area.selectionStart, area.selectionEnd)),
    ).toBe('COPY nothing /srv/')
    await page.reload()
    await page.locator('[data-problem="4"]').waitFor()
    expect(await page.getByLabel('Name').inputValue()).toBe('greeter')
    await page.getByRole('button', { name: 'Build', exact: true }).click()
    await page.getByRole('alert').getByText('invalid_request').waitFor()
    // A file of that name is the Dockerfile itself.
    const dockerfile = { name: 'greeter.Dockerfile', mimeType: 'text/plain', buffer: Buffer.from('FROM base\n') }
    await page.locator('input[aria-label="Files for COPY"]').setInputFiles(dockerfile)
    await page.locator('[data-problem]').first().waitFor({ state: 'detached' })
    expect(await text().inputValue()).toBe('FROM base\n')
    expect(problems).toEqual([])
  })

  it(
    'build it while one looks on, and tell each step with its time',
    async () => {
      const { page, problems } = tab
      path = await build('greeter', first)
      const beside = await openBeside(tab)
      await visit(beside, platform, `${BUILDS}?state=open`)
      await beside.page.locator('[data-build=greeter]').waitFor()
      await page.reload()
      await phase('base').waitFor()
      await state('ready').waitFor()
      await phase('finalize').locator('svg').waitFor()
      await beside.page.locator('[data-build=greeter]').waitFor({ state: 'detached' })
      await beside.page.close()
      for (const key of ['base', '1', '2', 'finalize'])
        expect(await phase(key).getAttribute('data-phase-state')).toBe('done')
      expect(await page.locator('[data-steps]').innerText()).toBe('2, 0 cached')
      await expectAccessible(tab)
      // It follows its end, and has not all lines in the page.
      await page.locator('[data-log=following]').getByText('Everything is done').waitFor()
      expect(await page.getByText('said 7', { exact: true }).count()).toBe(0)
      await page.getByLabel('Find in the log').fill('SAID 77')
      await page.locator('[data-log=held]').getByText('said 77', { exact: true }).waitFor()
      await page.locator('[data-found]', { hasText: '1 of 1' }).waitFor()
      await page.getByRole('button', { name: 'To the end' }).click()
      await page.locator('[data-log=following]').getByText('hello from the page').waitFor()
      await phase('2').getByRole('link').click()
      await page.waitForURL(/\?step=2$/)
      await page.locator('[data-log=held]').getByText('said 1', { exact: true }).waitFor()
      await page.reload()
      await page.locator('[data-log=held]').getByText('said 1', { exact: true }).waitFor()
      const [kept] = await Promise.all([
        page.waitForEvent('download'),
        page.getByRole('button', { name: 'Download the log' }).click(),
      ])
      expect(kept.suggestedFilename()).toMatch(/^bld-.*\.log$/)
      expect(problems).toEqual([])
    },
    BUSY_MS,
  )

  it('lead to its template, and to a capsule of it', async () => {
    const { page, problems } = tab
    await page.getByRole('link', { name: 'greeter', exact: true }).click()
    await page.locator('[data-template=greeter] [data-build-state=ready]').waitFor()
    expect(await page.locator('[data-template]').count()).toBe(1)
    await page.reload()
    await page.getByRole('link', { name: 'Last build of greeter' }).click()
    await page.getByRole('link', { name: 'Launch a capsule' }).click()
    const dialog = page.getByRole('dialog', { name: 'Launch a capsule' })
    await expect.poll(() => dialog.getByLabel('Template').inputValue(), PATIENT).toBe('greeter')
    await page.keyboard.press('Escape')
    expect(problems).toEqual([])
  })

  it(
    'say why a step was not cached, and where a build failed',
    async () => {
      const { page, problems } = tab
      await build('greeter', [...first, '', 'RUN echo almost && exit 3'])
      await state('error').waitFor()
      await page.locator('[data-reason]').getByText('In line 5 of the Dockerfile, step 3 of 3.').waitFor()
      await phase('3').getByText('new step').waitFor()
      expect(await phase('2').getAttribute('data-phase-state')).toBe('cached')
      expect(await phase('3').getAttribute('data-phase-state')).toBe('failed')
      expect(await page.locator('[data-steps]').innerText()).toBe('3, 2 cached')
      await page.getByRole('button', { name: 'Show it in the log' }).click()
      await page.locator('[data-log]').getByText('almost', { exact: true }).waitFor()
      await expectAccessible(tab)
      await page.reload()
      await page.locator('[data-reason]').waitFor()
      expect(problems).toEqual([])
    },
    BUSY_MS,
  )

  it(
    'cancel one after a question, and find it by its state',
    async () => {
      const { page, problems } = tab
      await build('sleeper', ['FROM base', 'RUN echo asleep; sleep 600'])
      await page.locator('[data-log]').getByText('asleep', { exact: true }).waitFor()
      await page.getByRole('button', { name: 'Cancel', exact: true }).click()
      await page.getByRole('button', { name: 'Cancel the build' }).click()
      await state('cancelled').waitFor()
      await page.getByRole('navigation', { name: 'Path' }).getByRole('link', { name: 'Builds' }).click()
      await page.locator('[data-build=sleeper] [data-build-state=cancelled]').waitFor()
      await page.getByRole('link', { name: 'failed', exact: true }).click()
      await page.waitForURL(/\?state=error$/)
      await page.locator('[data-build=sleeper]').waitFor({ state: 'detached' })
      await page.reload()
      await page.locator('[data-build=greeter] [data-build-state=error]').waitFor()
      await expectAccessible(tab)
      await visit(tab, platform, `${BUILDS}?name=sleeper`)
      await page.locator('[data-build=sleeper]').waitFor()
      expect(await page.locator('[data-build]').count()).toBe(1)
      await visit(tab, platform, `${BUILDS}/bld-${'0'.repeat(25)}`)
      await page.getByText('build_not_found').waitFor()
      expect(problems.splice(0).filter((problem) => !problem.includes('404'))).toEqual([])
    },
    BUSY_MS,
  )

  it('offer nothing but a look to who may only look', async () => {
    const viewer = await openViewer(browser, platform, { name: 'Viktor', team, called: "Bertha's Team", owner })
    const { page } = viewer
    await visit(viewer, platform, BUILDS)
    await page.locator('[data-build=sleeper]').getByText('Bertha').waitFor()
    expect(await page.getByRole('button', { name: 'New build' }).count()).toBe(0)
    await visit(viewer, platform, path)
    await page.locator('[data-log]').waitFor()
    expect(await page.getByRole('link', { name: 'Launch a capsule' }).count()).toBe(0)
    await visit(viewer, platform, `${BUILDS}/new`)
    await page.getByText('does not allow builds').waitFor()
    expect(viewer.problems).toEqual([])
  })
})
