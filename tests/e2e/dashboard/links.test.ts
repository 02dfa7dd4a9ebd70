import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { signIn, type Tab, useBrowser, violations, visit } from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn, PASSWORD, tokenInMail } from '../harness/people.js'
import { collect, spawnWrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform } = usePlatform()
const browser = useBrowser()
const anonymous = new Api(platform, '')
const env = { WRENN_API_KEY: '', WRENN_LOGINS: join(platform.dir, 'test-links-logins.json') }

describe.skipIf(noBrowser !== '')(`pages that links lead to ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
  })
  afterAll(async () => {
    await rm(env.WRENN_LOGINS, { force: true })
  })

  /** Nobody is kept from using the page, in either theme. */
  async function check(tab: Tab): Promise<void> {
    for (const colorScheme of ['dark', 'light'] as const) {
      await tab.page.emulateMedia({ colorScheme })
      expect([colorScheme, await violations(tab)]).toEqual([colorScheme, []])
    }
  }

  it('the set-up says why a link is over, and its code never goes to the server in an address', async () => {
    const tab = await browser.open()
    const asked: string[] = []
    tab.page.on('request', (request) => asked.push(request.url()))
    await visit(tab, platform, '/setup#code=0123abcd')
    await tab.page.getByLabel('Name').fill('Eve')
    await tab.page.getByLabel('Mail address').fill('eve@example.com')
    await tab.page.getByLabel('Password', { exact: true }).fill(PASSWORD)
    await check(tab)
    await tab.page.getByRole('button', { name: 'Make the account' }).click()
    await tab.page.getByRole('alert').getByText('conflict').waitFor()
    await check(tab)
    expect(asked.filter((url) => url.includes('0123abcd') && !url.includes('#'))).toEqual([])
  })

  it('an invitation waits for the sign-in, and leads into the team', async () => {
    const owner = await logIn(platform, (await addPerson(platform, 'Olga')).email)
    const { email } = await addPerson(platform, 'Ivan')
    const json = { email, role: 'member' }
    await anonymous.json('POST', `/v1/teams/${owner.team_id}/invitations`, { ...bearer(owner), json })
    const code = await tokenInMail(platform, email, '/invitation')
    const tab = await browser.open()
    const { page } = tab
    await visit(tab, platform, `/invitation#token=${code}`)
    await page.getByRole('link', { name: 'Sign in', exact: true }).waitFor()
    await check(tab)
    await page.getByRole('link', { name: 'Sign in', exact: true }).click()
    await page.getByLabel('Mail address').fill(email)
    await page.getByLabel('Password').fill(PASSWORD)
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await page.getByText(`You are signed in as ${email}`).waitFor()
    await check(tab)
    await page.getByRole('button', { name: 'Join' }).click()
    await page.getByText(/^You are in /).waitFor()
    const members = await anonymous.json<{ email: string; role: string }[]>(
      'GET',
      `/v1/teams/${owner.team_id}/members`,
      bearer(owner),
    )
    expect(members.find((member) => member.email === email)).toMatchObject({ role: 'member' })
  })

  for (const [verb, heading] of [
    ['Sign it in', 'It is signed in'],
    ['Send it away', 'It was sent away'],
  ] as const) {
    it(`a program that waits with a code: ${verb}`, async () => {
      const { email } = await addPerson(platform, 'Lise')
      const tab = await browser.open()
      const { page } = tab
      await signIn(tab, platform, email)
      const waiting = spawnWrenn(platform, ['login', '--json'], env)
      let said = ''
      waiting.stderr?.on('data', (text: Buffer) => {
        said += text
      })
      const result = collect(waiting, '')
      const code = await eventually('a code', async () => /device\?code=([A-Z-]+)/.exec(said)?.[1])
      await visit(tab, platform, `/device?code=${code}`)
      await page.getByRole('heading', { name: 'Sign a program in' }).waitFor()
      expect(page.url()).toBe(`${platform.url}/device`)
      await check(tab)
      await page.getByRole('button', { name: 'Go on' }).click()
      await page.getByText(code, { exact: true }).waitFor()
      await check(tab)
      await page.getByRole('button', { name: verb }).click()
      await page.getByRole('heading', { name: heading }).waitFor()
      await check(tab)
      const { code: exitCode, stdout } = await result
      if (verb === 'Sign it in') expect([exitCode, JSON.parse(stdout)]).toMatchObject([0, { email }])
      else expect(exitCode).toBe(1)
    })
  }
})
