import { beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { signIn, useBrowser, visit } from '../harness/dashboard.js'
import { addPerson, firstAdmin, PASSWORD } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
let email = ''

beforeAll(async () => {
  await firstAdmin(platform)
  email = (await addPerson(platform, 'Grace')).email
})

describe.skipIf(noBrowser !== '')(`signing in ${noBrowser}`, () => {
  it('tells what is wrong with its code, then leads to the page that was asked for', async () => {
    const tab = await browser.open()
    const { page, problems } = tab
    await visit(tab, platform, '/dashboard/keys')
    await page.waitForURL('**/login?next=%2Fdashboard%2Fkeys')
    await page.getByLabel('Mail address').fill(email)
    await page.getByLabel('Password').fill('not the password')
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await page.getByRole('alert').getByText('unauthorized').waitFor()
    await page.getByLabel('Password').fill(PASSWORD)
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await page.getByRole('heading', { name: 'API keys' }).waitFor()
    expect(new URL(page.url()).pathname).toBe('/dashboard/keys')
    // The browser reports each answer that is an error; those of the visit without a session and of the wrong password are meant.
    expect(problems.filter((problem) => !problem.includes('401'))).toEqual([])
  })

  it('never leads to another site, however the address is written', async () => {
    for (const next of ['//evil.example/x', 'https://evil.example', '/\\evil.example', '/%09/evil.example']) {
      const tab = await browser.open()
      await visit(tab, platform, `/login?next=${encodeURIComponent(next)}`)
      await tab.page.getByLabel('Mail address').fill(email)
      await tab.page.getByLabel('Password').fill(PASSWORD)
      await tab.page.getByRole('button', { name: 'Sign in', exact: true }).click()
      await tab.page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()
      expect(tab.page.url()).toBe(`${platform.url}/dashboard/capsules`)
    }
  })

  it('keeps tokens where no script can read them, and asks nobody else for anything', async () => {
    const tab = await browser.open()
    const asked = new Set<string>()
    tab.page.on('request', (request) => asked.add(new URL(request.url()).origin))
    await signIn(tab, platform, email)
    const stored = await tab.page.evaluate(() =>
      JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]),
    )
    expect(stored).not.toMatch(/wr[ar]_|token/)
    const cookies = await tab.page.context().cookies()
    expect(cookies.map(({ name, httpOnly, sameSite }) => [name, httpOnly, sameSite]).sort()).toEqual([
      ['wrenn_access', true, 'Strict'],
      ['wrenn_refresh', true, 'Strict'],
    ])
    expect([...asked]).toEqual([platform.url])
  })

  it('takes codes out of the address at once', async () => {
    const tab = await browser.open()
    for (const [path, heading] of [
      ['/reset-password?token=0123abcd', 'Choose another password'],
      ['/activate#token=0123abcd', 'Activate your account'],
      ['/setup#code=0123abcd', 'Set up Wrenn'],
      ['/invitation?token=0123abcd', 'Join a team'],
    ] as const) {
      await visit(tab, platform, path)
      await tab.page.getByRole('heading', { name: heading }).waitFor()
      expect(tab.page.url()).toBe(platform.url + path.replace(/[?#].*$/, ''))
      expect(await tab.page.evaluate(() => history.length)).toBeGreaterThan(0)
    }
  })

  it('goes back to the sign-in, and to the page afterwards, when the session was ended', async () => {
    const tab = await browser.open()
    await signIn(tab, platform, email)
    await tab.page.getByRole('link', { name: 'Templates' }).click()
    await tab.page.getByRole('heading', { name: 'Templates' }).waitFor()
    await tab.page.context().clearCookies()
    // Whatever the page asks for next finds out; its stream of events may have been first.
    await tab.page.reload()
    await tab.page.waitForURL('**/login?next=*')
    await tab.page.getByLabel('Mail address').fill(email)
    await tab.page.getByLabel('Password').fill(PASSWORD)
    await tab.page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await tab.page.getByRole('heading', { name: 'Templates' }).waitFor()
  })

  it('signs out', async () => {
    const tab = await browser.open()
    await signIn(tab, platform, email)
    await tab.page.getByRole('button', { name: /^Account of/ }).click()
    await tab.page.getByRole('menuitem', { name: 'Sign out' }).click()
    await tab.page.getByRole('heading', { name: 'Sign in', exact: true }).waitFor()
    await visit(tab, platform, '/dashboard/capsules')
    await tab.page.getByRole('heading', { name: 'Sign in', exact: true }).waitFor()
  })

  it('is shown in no frame of another page', async () => {
    const tab = await browser.open()
    const refused: string[] = []
    tab.page.on('console', (message) => refused.push(message.text()))
    await tab.page.setContent(`<iframe src="${platform.url}/login"></iframe>`)
    await expect.poll(() => refused.join('\n'), { timeout: 60_000 }).toMatch(/frame-ancestors|X-Frame-Options/i)
  })
})
