import { Secret, TOTP } from 'otpauth'
import type { Page } from 'playwright-core'
import { beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { answer, signIn, type Tab, useBrowser, violations, visit } from '../harness/dashboard.js'
import { addPerson, firstAdmin, PASSWORD } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
/** Passkeys are for names, and this is the one of this machine. */
let here: { readonly url: string }

beforeAll(async () => {
  await firstAdmin(platform)
  here = { url: `http://localhost:${platform.port}` }
})

/** A session of somebody new. */
async function newTab(name: string): Promise<Tab & { readonly email: string }> {
  const { email } = await addPerson(platform, name)
  const tab = await browser.open()
  await signIn(tab, here, email)
  return { ...tab, email }
}

async function signOut({ page }: Tab): Promise<void> {
  await page.getByRole('button', { name: /^Account of/ }).click()
  await page.getByRole('menuitem', { name: 'Sign out' }).click()
  await page.getByRole('heading', { name: 'Sign in', exact: true }).waitFor()
}

async function typePassword(page: Page, email: string): Promise<void> {
  await page.getByLabel('Mail address').fill(email)
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign in', exact: true }).click()
}

const atHome = (page: Page) => page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()

async function toSettings(tab: Tab): Promise<void> {
  await visit(tab, here, '/dashboard/settings')
  await tab.page.getByRole('heading', { name: 'Second factor' }).waitFor()
}

/** A device that has passkeys, and whose owner nods to everything. */
async function addAuthenticator(page: Page): Promise<void> {
  const devtools = await page.context().newCDPSession(page)
  await devtools.send('WebAuthn.enable')
  await devtools.send('WebAuthn.addVirtualAuthenticator', {
    options: {
      protocol: 'ctap2',
      transport: 'internal',
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  })
}

describe.skipIf(noBrowser !== '')(`second factors ${noBrowser}`, () => {
  it('of an app are added by its code, and asked for after the password; a recovery code stands in', async () => {
    const tab = await newTab('Grace')
    const { page, email, problems } = tab
    await toSettings(tab)
    await page.getByRole('button', { name: 'Add an authenticator app' }).click()
    await page.getByRole('img', { name: 'QR code for the app' }).waitFor()
    const secret = await page.locator('[data-totp-secret]').innerText()
    const app = new TOTP({ secret: Secret.fromBase32(secret) })
    expect(await violations(tab)).toEqual([])
    await page.getByLabel('Code', { exact: true }).fill(app.generate())
    await page.getByRole('button', { name: 'Add it' }).click()
    await page.getByRole('heading', { name: 'Your recovery codes' }).waitFor()
    const codes = await page.locator('[data-recovery-codes] li').allInnerTexts()
    expect(codes).toHaveLength(10)
    expect(await violations(tab)).toEqual([])
    const saving = page.waitForEvent('download')
    await page.getByRole('button', { name: 'Download' }).click()
    expect((await saving).suggestedFilename()).toBe('wrenn-recovery-codes.txt')
    await page.getByRole('button', { name: 'I have kept them' }).click()
    await page.getByText('10 of 10 left').waitFor()

    await signOut(tab)
    await typePassword(page, email)
    await page.getByLabel('Code of your authenticator app').fill('000000')
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await page.getByRole('alert').getByText('unauthorized').waitFor()
    expect(await violations(tab)).toEqual([])
    // That of the step before was used to add the app.
    await page.getByLabel('Code of your authenticator app').fill(app.generate({ timestamp: Date.now() + 30_000 }))
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await atHome(page)

    await signOut(tab)
    await typePassword(page, email)
    await page.getByRole('button', { name: 'Use a recovery code' }).click()
    await page.getByLabel('Recovery code', { exact: true }).fill(codes[0] ?? '')
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await atHome(page)
    await toSettings(tab)
    await page.getByText('9 of 10 left').waitFor()
    // The browser reports each answer that is an error: those without a session, and of the wrong code, are meant.
    expect(problems.filter((problem) => !problem.includes('401'))).toEqual([])
  })

  it('that are passkeys sign in alone, and after a password', async () => {
    const tab = await newTab('Barbara')
    const { page, email, problems } = tab
    await addAuthenticator(page)
    await toSettings(tab)
    await page.getByRole('button', { name: 'Add a passkey…' }).click()
    await page.getByRole('dialog').getByLabel('Name').fill('This machine')
    await page.getByRole('button', { name: 'Add it' }).click()
    await page.getByRole('button', { name: 'I have kept them' }).click()
    await page.locator('[data-passkey="This machine"]').getByText('never used').waitFor()

    await signOut(tab)
    await page.getByRole('button', { name: 'Sign in with a passkey' }).click()
    await atHome(page)

    await signOut(tab)
    await typePassword(page, email)
    await page.getByRole('button', { name: 'Use a passkey' }).click()
    await atHome(page)
    await toSettings(tab)
    await page.getByRole('button', { name: 'Remove the passkey This machine' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Remove', exact: true }).click()
    await page.locator('[data-passkey]').waitFor({ state: 'detached' })
    await signOut(tab)
    await typePassword(page, email)
    await atHome(page)
    expect(problems.filter((problem) => !problem.includes('401'))).toEqual([])
  })

  it('ask who it is before a change, when that was long ago', async () => {
    const tab = await newTab('Edsger')
    const { page } = tab
    await addAuthenticator(page)
    await toSettings(tab)
    const error = { code: 'confirmation_needed', message: 'Too long ago.', requestId: 'req-1' }
    let refusals = 0
    await answer(page, '**/v1/me/factors/totp', async (route) => {
      refusals += 1
      if (refusals > 1) return await route.continue()
      await route.fulfill({ status: 403, contentType: 'application/json', body: JSON.stringify({ error }) })
    })
    await page.getByRole('button', { name: 'Add an authenticator app' }).click()
    await page.getByRole('heading', { name: 'Is it you?' }).waitFor()
    expect(await violations(tab)).toEqual([])
    await page.getByLabel('Your password').fill('not the password')
    await page.getByRole('button', { name: 'Go on' }).click()
    await page.getByRole('alert').getByText('wrong_password').waitFor()
    await page.getByLabel('Your password').fill(PASSWORD)
    await page.getByRole('button', { name: 'Go on' }).click()
    await page.getByRole('img', { name: 'QR code for the app' }).waitFor()
    expect(refusals).toBe(2)
  })
})

describe.skipIf(noBrowser !== '')(`deleting one's account ${noBrowser}`, () => {
  it('ends the session, and can be taken back by signing in', async () => {
    const tab = await newTab('Alan')
    const { page, email } = tab
    await toSettings(tab)
    await page.getByRole('button', { name: 'Delete my account…' }).click()
    await page.getByLabel('Your mail address').fill(email)
    await page.getByLabel('Your password').fill(PASSWORD)
    expect(await violations(tab)).toEqual([])
    await page.getByRole('button', { name: 'Delete my account', exact: true }).click()
    await page.getByRole('heading', { name: 'Sign in', exact: true }).waitFor()
    await typePassword(page, email)
    await page.getByRole('alert').getByText('deletion_pending').waitFor()
    await page.getByRole('button', { name: 'Keep my account and sign in' }).click()
    await atHome(page)
  })
})
