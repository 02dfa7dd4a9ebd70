import { gzipSync } from 'node:zlib'
import { beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import {
  expectAccessible,
  expectNothingBeside,
  openBeside,
  PATIENT,
  PHONE,
  signIn,
  type Tab,
  useBrowser,
  violations,
  visit,
} from '../harness/dashboard.js'
import { addPerson, firstAdmin } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
let email = ''

const open = [
  ['/login', 'Sign in'],
  ['/signup', 'Sign up'],
  ['/setup', 'Set up Wrenn'],
  ['/activate', 'Activate your account'],
  ['/forgot-password', 'Choose another password'],
  ['/reset-password', 'Choose another password'],
] as const
const closed = [
  ['/dashboard/capsules', 'Capsules'],
  ['/dashboard/templates', 'Templates'],
  ['/dashboard/keys', 'API keys'],
  ['/dashboard/channels', 'Channels'],
  ['/dashboard/team', /Marie/],
  ['/dashboard/usage', 'Usage'],
  ['/dashboard/audit', 'Audit'],
  ['/dashboard/settings', 'Settings'],
  ['/invitation', 'Join a team'],
  ['/device', 'Sign a program in'],
] as const

/** The network of a page with a stream of events is never idle. */
async function untilSettled({ page }: Tab, path: string): Promise<void> {
  if (!path.startsWith('/dashboard')) return await page.waitForLoadState('networkidle')
  await page.locator('[data-live=live]').waitFor()
  await expect.poll(() => page.getByText(/^(?:Looking|Loading)…$/).count(), PATIENT).toBe(0)
}

describe.skipIf(noBrowser !== '')(`pages of the dashboard ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
    email = (await addPerson(platform, 'Marie')).email
  })

  for (const colorScheme of ['dark', 'light'] as const) {
    it(`can be used by everybody, without a complaint of the browser, when they are ${colorScheme}`, async () => {
      const tab = await browser.open({ colorScheme })
      for (const [path, heading] of open) await look(tab, path, heading)
      await signIn(tab, platform, email)
      tab.problems.length = 0
      for (const [path, heading] of closed) await look(tab, path, heading)
    })
  }

  async function look(tab: Tab, path: string, heading: string | RegExp): Promise<void> {
    await visit(tab, platform, path)
    await tab.page.getByRole('heading', { name: heading, level: 1 }).waitFor()
    await untilSettled(tab, path)
    expect([path, await violations(tab)]).toEqual([path, []])
    expect([path, tab.problems]).toEqual([path, []])
  }

  it('say so where there is none, which can be used by everybody too', async () => {
    const tab = await browser.open()
    await visit(tab, platform, '/nowhere')
    await tab.page.getByText('There is no such page').waitFor()
    await expectAccessible(tab)
    await tab.page.getByRole('link', { name: 'To the capsules' }).click()
    await tab.page.getByRole('heading', { name: 'Sign in', level: 1 }).waitFor()
  })

  it('are there again by back, forward and reload', async () => {
    const tab = await browser.open()
    const { page } = tab
    await signIn(tab, platform, email)
    const there = async ([path, heading]: (typeof closed)[number]): Promise<void> => {
      await page.getByRole('heading', { name: heading, level: 1 }).waitFor()
      expect(new URL(page.url()).pathname).toBe(path)
    }
    const sections = closed.filter(([path]) => path.startsWith('/dashboard/'))
    for (const section of sections) {
      await page.getByRole('navigation', { name: 'Sections' }).locator(`a[href="${section[0]}"]`).click()
      await there(section)
    }
    for (const section of sections.slice(0, -1).reverse()) {
      await page.goBack()
      await there(section)
      await page.reload()
      await there(section)
    }
    for (const section of sections.slice(1)) {
      await page.goForward()
      await there(section)
    }
    expect(tab.problems).toEqual([])
  })

  it('have what they show in their address, so that a reload shows it again', async () => {
    const tab = await browser.open()
    const { page } = tab
    await signIn(tab, platform, email)
    await visit(tab, platform, '/dashboard/templates')
    await page.getByRole('link', { name: 'base' }).click()
    await page.locator('[aria-current=true]', { hasText: 'base' }).waitFor()
    await page.reload()
    await page.locator('[aria-current=true]', { hasText: 'base' }).waitFor()
    await visit(tab, platform, '/dashboard/audit')
    await page.getByLabel('Outcome').selectOption('failure')
    await page.getByLabel('About', { exact: true }).selectOption('session')
    await expect.poll(() => new URL(page.url()).search, PATIENT).toBe('?outcome=failure&type=session')
    await page.reload()
    await page.getByRole('heading', { name: 'Audit', level: 1 }).waitFor()
    const shown = () =>
      Promise.all(['Outcome', 'About'].map((label) => page.getByLabel(label, { exact: true }).inputValue()))
    await expect.poll(shown, PATIENT).toEqual(['failure', 'session'])
    await visit(tab, platform, '/dashboard/capsules?launch=minimal')
    await page.getByRole('dialog', { name: 'Launch a capsule' }).waitFor()
    expect(tab.problems).toEqual([])
  })

  it('show in one tab what is done in another, without a reload', async () => {
    const one = await browser.open()
    await signIn(one, platform, email)
    const other = await openBeside(one)
    for (const tab of [one, other]) {
      await visit(tab, platform, '/dashboard/keys')
      await tab.page.locator('[data-live=live]').waitFor()
    }
    await other.page.evaluate('globalThis.isFirst = true')
    const name = `beside-${Date.now()}`
    await one.page.getByRole('button', { name: 'New key' }).click()
    await one.page.getByRole('dialog').getByLabel('Name').fill(name)
    await one.page.getByRole('button', { name: 'Make the key' }).click()
    await other.page.locator(`[data-key="${name}"]`).waitFor()
    await other.page.getByRole('button', { name: `Revoke ${name}` }).click()
    await other.page.getByRole('dialog').getByRole('button', { name: 'Revoke', exact: true }).click()
    await one.page.locator(`[data-key="${name}"]`).waitFor({ state: 'detached' })
    expect(await other.page.evaluate('globalThis.isFirst')).toBe(true)
    for (const { problems } of [one, other]) expect(problems).toEqual([])
  })

  it('fit a small screen', async () => {
    const tab = await browser.open({ viewport: PHONE })
    await signIn(tab, platform, email)
    for (const [path, heading] of closed) {
      await visit(tab, platform, path)
      await tab.page.getByRole('heading', { name: heading, level: 1 }).waitFor()
      await expectNothingBeside(tab)
    }
  })

  it('load less than 150 KB before the list is there, and no terminal', async () => {
    const signedIn = await browser.open()
    await signIn(signedIn, platform, email)
    // Another browser, which has nothing in its cache.
    const tab = await browser.open({ storageState: await signedIn.page.context().storageState() })
    const loaded = new Map<string, Promise<Buffer>>()
    tab.page.on('response', (response) => {
      if (/\.(?:js|css)$/.test(new URL(response.url()).pathname)) loaded.set(response.url(), response.body())
    })
    await visit(tab, platform, '/dashboard/capsules')
    await tab.page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()
    await untilSettled(tab, '/dashboard/capsules')
    const sizes = await Promise.all([...loaded.values()].map(async (body) => gzipSync(await body).length))
    expect(sizes.length).toBeGreaterThan(3)
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(150_000)
    const text = Buffer.concat(await Promise.all(loaded.values())).toString()
    for (const later of ['xterm-helper-textarea', 'uplot']) expect(text).not.toContain(later)
  })

  it('make a key, show it once, and revoke it', async () => {
    const tab = await browser.open()
    const { page } = tab
    await signIn(tab, platform, email)
    await page.getByRole('link', { name: 'API keys' }).click()
    await page.getByRole('button', { name: 'New key' }).click()
    await page.getByRole('dialog').getByLabel('Name').fill('ci')
    await page.getByRole('button', { name: 'Make the key' }).click()
    const key = await page.locator('[data-revealed="the key"]').innerText()
    const ask = async () => (await fetch(`${platform.url}/v1/capsules`, { headers: { 'x-api-key': key } })).status
    expect(await ask()).toBe(200)
    await page.keyboard.press('Escape')
    await page.locator('[data-revealed="the key"]').waitFor({ state: 'detached' })
    await page.reload()
    await page.locator('[data-key=ci]').waitFor()
    expect(await page.content()).not.toContain(key)
    await page.getByRole('button', { name: 'Revoke ci' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke', exact: true }).click()
    await page.locator('[data-key=ci]').waitFor({ state: 'detached' })
    await expect.poll(ask, { timeout: 20_000 }).toBe(401)
  })

  it('are reached by the keyboard alone', async () => {
    const tab = await browser.open()
    const { page } = tab
    await signIn(tab, platform, email)
    await page.keyboard.press('Control+k')
    await page.getByRole('combobox', { name: 'Search' }).fill('audit')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: 'Audit' }).waitFor()
    await page.keyboard.press('Control+k')
    await page.getByRole('combobox', { name: 'Search' }).fill('theme light')
    await page.keyboard.press('Enter')
    await expect.poll(() => page.evaluate(() => document.documentElement.dataset.theme)).toBe('light')
    await page.reload()
    await page.getByRole('heading', { name: 'Audit' }).waitFor()
    expect(await page.evaluate(() => document.documentElement.dataset.theme)).toBe('light')
    await page.goBack()
    await page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()
  })
})
