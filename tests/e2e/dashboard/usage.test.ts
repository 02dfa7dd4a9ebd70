import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { expectNothingBeside, PHONE, signIn, type Tab, useBrowser, violations, visit } from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn, wrennJson } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
const anonymous = new Api(platform, '')
const plan = `usage-${randomBytes(4).toString('hex')}`
let person: ReturnType<typeof bearer>
let tab: Tab

const card = (label: string) => tab.page.locator(`[data-quota="${label}"]`)

/** What a team uses, as its people see it; nothing is loaded anew unless a test says so. */
describe.skipIf(noBrowser !== '')(`the page of usage ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
    const { email } = await addPerson(platform, 'Katherine')
    const session = await logIn(platform, email)
    person = bearer(session)
    await wrennJson(platform, ['plan', 'set', plan, '--running', '1', '--memory', '8g'])
    await wrennJson(platform, ['quota', 'set', String(session.team_id), '--plan', plan])
    tab = await browser.open()
    await signIn(tab, platform, email)
  })

  afterAll(async () => {
    for (const { id } of await anonymous.json<{ id: string }[]>('GET', '/v1/capsules', person)) {
      await anonymous.json('DELETE', `/v1/capsules/${id}`, person)
    }
  })

  it('tells what the team uses of each limit, and which plan says so', async () => {
    const { page, problems } = tab
    await page.getByRole('link', { name: 'Usage' }).click()
    await page.getByRole('heading', { name: 'Usage', level: 1 }).waitFor()
    await page.getByText(`The team has the plan ${plan}`).waitFor()
    await card('Memory').getByText('8 GiB').waitFor()
    await card('vCPUs').getByText('No limit').waitFor()
    expect(await card('Running capsules').getByRole('meter').getAttribute('aria-valuenow')).toBe('0')
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      expect(await violations(tab)).toEqual([])
    }
    expect(problems).toEqual([])
  })

  it('shows what comes and goes', async () => {
    const { page } = tab
    await page.evaluate('globalThis.isFirst = true')
    const { id } = await anonymous.json<{ id: string }>('POST', '/v1/capsules?wait_sec=200', { ...person, json: {} })
    await card('Running capsules').getByText('Used up').waitFor()
    await card('Memory').getByText('512 MiB').waitFor()
    await anonymous.json('POST', `/v1/capsules/${id}/pause?wait_sec=200`, person)
    await card('Running capsules').getByText('Used up').waitFor({ state: 'detached' })
    await card('Capsules').locator('.metric', { hasText: /^1$/ }).waitFor()
    expect(await page.evaluate('globalThis.isFirst')).toBe(true)
    await anonymous.json('DELETE', `/v1/capsules/${id}`, person)
    await card('Capsules').locator('.metric', { hasText: /^0$/ }).waitFor()
  })

  it('tells what was used each day of a month, as bars, as a table and as a file', async () => {
    const { page } = tab
    const bars = (title: string) => page.locator(`[data-usage="${title}"]`)
    await page.reload()
    for (const title of ['vCPUs', 'Memory', 'Disk', 'Received', 'Sent']) await bars(title).waitFor()
    await page.getByText('As a table').click()
    const today = new Date().toISOString().slice(0, 10)
    await page.locator(`[data-usage-day="${today}"]`).waitFor()
    const download = page.waitForEvent('download')
    await page.getByRole('button', { name: 'CSV' }).click()
    const file = await download
    expect(file.suggestedFilename()).toBe(`wrenn-usage-${today.slice(0, 7)}.csv`)
    expect((await readFile(await file.path(), 'utf8')).split('\n')[1]).toContain(today)
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      expect(await violations(tab)).toEqual([])
    }
    await page.getByRole('link', { name: 'The month before' }).click()
    await page.getByRole('heading', { name: /^Nothing was used in / }).waitFor()
    await page.reload()
    await page.getByRole('heading', { name: /^Nothing was used in / }).waitFor()
    expect(await violations(tab)).toEqual([])
    await page.getByRole('link', { name: 'The month after' }).click()
    await bars('Disk').waitFor()
  })

  it('is there again after a reload, by back and forward, and on a small screen', async () => {
    const { page, problems } = tab
    await page.reload()
    await card('Memory').waitFor()
    await page.getByRole('link', { name: 'Templates' }).click()
    await page.getByRole('heading', { name: 'Templates', level: 1 }).waitFor()
    await page.goBack()
    await card('Memory').waitFor()
    await page.goForward()
    await page.getByRole('heading', { name: 'Templates', level: 1 }).waitFor()
    await page.setViewportSize(PHONE)
    await visit(tab, platform, '/dashboard/usage')
    await card('Memory').waitFor()
    await expectNothingBeside(tab)
    expect(problems).toEqual([])
  })
})
