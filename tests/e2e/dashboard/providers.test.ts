import { randomBytes } from 'node:crypto'
import { type OidcServer, startOidcServer } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { expectAccessible, signIn, type Tab, useBrowser, visit } from '../harness/dashboard.js'
import { addPerson, firstAdmin } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
let acme: OidcServer

beforeAll(async () => {
  await firstAdmin(platform)
})
afterAll(async () => {
  await acme?.[Symbol.asyncDispose]()
})

/** Somebody at Acme, whose mail is verified. */
function newLogin(): string {
  const login = `p${randomBytes(6).toString('hex')}`
  acme.people.set(login, { email: `${login}@acme.example`, email_verified: true, name: 'Grace' })
  return login
}

/** On the pages of the provider. */
async function logInThere({ page }: Tab, login: string): Promise<void> {
  await page.waitForURL(`${acme.issuer}/**`)
  await page.locator('input[name=login]').fill(login)
  await page.locator('input[name=password]').fill('any')
  await page.locator('button[type=submit]').click()
  await page.locator('input[name=prompt][value=consent]').waitFor({ state: 'attached' })
  await page.locator('button[type=submit]').click()
}

describe.skipIf(noBrowser !== '')(`signing in with a provider ${noBrowser}`, () => {
  it('says so while the provider is down, and works once it is there', async () => {
    const tab = await browser.open()
    await visit(tab, platform, '/login?next=%2Fdashboard%2Fkeys')
    await tab.page.getByRole('link', { name: 'Continue with Acme Corp' }).click()
    await tab.page.getByRole('alert').getByText('provider_unavailable').waitFor()
    const redirectUris = [`${platform.url}/auth/oauth/acme/callback`]
    acme = await startOidcServer({ ...platform.provider, redirectUris })
    await tab.page.getByRole('link', { name: 'Continue with Acme Corp' }).click()
    await logInThere(tab, newLogin())
    await tab.page.getByRole('alert').getByText('no_account').waitFor()
    expect(new URL(tab.page.url()).searchParams.get('next')).toBe('/dashboard/keys')
  })

  it('makes no account where nobody may sign up', async () => {
    const tab = await browser.open()
    await visit(tab, platform, '/signup')
    await tab.page.getByRole('link', { name: 'Continue with Acme Corp' }).click()
    await logInThere(tab, newLogin())
    await tab.page.getByRole('alert').getByText('signup_closed').waitFor()
    expect(new URL(tab.page.url()).pathname).toBe('/signup')
  })

  it('is connected in the settings, signs in from then on, and is let go of', async () => {
    const { email } = await addPerson(platform, 'Grace')
    const tab = await browser.open()
    const { page } = tab
    const addresses: string[] = []
    page.on('request', (request) => addresses.push(request.url()))
    await signIn(tab, platform, email)
    await visit(tab, platform, '/dashboard/settings')
    await page.getByRole('button', { name: 'Connect Acme Corp' }).click()
    await logInThere(tab, newLogin())
    await page.getByText('Your account is connected with Acme Corp').waitFor()
    await page.waitForURL(`${platform.url}/dashboard/settings`)

    await page.getByRole('button', { name: /^Account of/ }).click()
    await page.getByRole('menuitem', { name: 'Sign out' }).click()
    await page.getByRole('heading', { name: 'Sign in', exact: true }).waitFor()
    await visit(tab, platform, '/login?next=%2Fdashboard%2Fkeys')
    // The provider knows this browser by now, and asks nothing.
    await page.getByRole('link', { name: 'Continue with Acme Corp' }).click()
    await page.getByRole('heading', { name: 'API keys' }).waitFor()
    expect(page.url()).toBe(`${platform.url}/dashboard/keys`)
    const cookies = await page.context().cookies(platform.url)
    expect(cookies.map(({ name, httpOnly, sameSite }) => [name, httpOnly, sameSite]).sort()).toEqual([
      ['wrenn_access', true, 'Strict'],
      ['wrenn_oauth', true, 'Lax'],
      ['wrenn_refresh', true, 'Strict'],
    ])
    const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]))
    expect(stored + addresses.join()).not.toMatch(/wr[ar]_/)
    expect(tab.problems.filter((problem) => problem.includes('Not found: '))).toEqual([])
    // The only code that a server saw in an address is the provider's, at its callback.
    const withCode = addresses.map((address) => new URL(address)).filter(({ searchParams }) => searchParams.has('code'))
    expect(new Set(withCode.map(({ pathname }) => pathname))).toEqual(new Set(['/auth/oauth/acme/callback']))

    await visit(tab, platform, '/dashboard/settings')
    await page.getByRole('button', { name: 'Disconnect Acme Corp' }).click()
    await page.getByRole('button', { name: 'Connect Acme Corp', exact: true }).waitFor()
    await page.getByText('Your account is no longer connected with Acme Corp').waitFor()
  })

  it('takes a code of an address from no other browser', async () => {
    const tab = await browser.open()
    await visit(tab, platform, `/auth/callback#code=${'0'.repeat(64)}`)
    await tab.page.getByRole('alert').getByText('login_expired').waitFor()
    expect(tab.page.url()).toBe(`${platform.url}/auth/callback`)
    await expectAccessible(tab)
  })
})
