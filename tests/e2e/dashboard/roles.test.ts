import { beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { signIn, type Tab, useBrowser, violations, visit } from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn, tokenInMail } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
let owner: Tab
let member: Tab
let memberEmail = ''
let olgas: ReturnType<typeof bearer>
const anonymous = new Api(platform, '')

/** Two people with a page each; nothing is loaded anew unless a test says so. */
describe.skipIf(noBrowser !== '')(`a role that changes while the page is open ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
    const olga = await addPerson(platform, 'Olga')
    const vera = await addPerson(platform, 'Vera')
    memberEmail = vera.email
    const [ownerSession, session] = [await logIn(platform, olga.email), await logIn(platform, vera.email)]
    olgas = bearer(ownerSession)
    const json = { email: vera.email, role: 'member' }
    await anonymous.json('POST', `/v1/teams/${ownerSession.team_id}/invitations`, { ...bearer(ownerSession), json })
    const token = await tokenInMail(platform, vera.email, '/invitation')
    await anonymous.json('POST', '/v1/invitations/accept', { ...bearer(session), json: { token } })
    owner = await browser.open()
    member = await browser.open()
    await signIn(owner, platform, olga.email)
    await visit(owner, platform, '/dashboard/team')
    await signIn(member, platform, vera.email)
    await member.page.getByRole('button', { name: /^Team: / }).click()
    await member.page.getByRole('menuitem', { name: "Olga's Team" }).click()
    await member.page.getByRole('button', { name: "Team: Olga's Team" }).waitFor()
    await member.page.locator('[data-live=live]').waitFor()
  })

  it('takes away what it does not allow any more, and gives it back', async () => {
    const { page } = member
    const launch = page.getByRole('button', { name: 'Launch the first one' })
    const keys = page.getByRole('link', { name: 'API keys' })
    await launch.waitFor()
    await keys.waitFor()
    await page.evaluate('globalThis.isFirst = true')
    const role = owner.page.locator(`[data-member="${memberEmail}"]`).getByRole('combobox')
    await role.selectOption('viewer')
    await launch.waitFor({ state: 'detached' })
    await keys.waitFor({ state: 'detached' })
    expect(await violations(member)).toEqual([])
    await role.selectOption('member')
    await launch.waitFor()
    await keys.waitFor()
    expect(await page.evaluate('globalThis.isFirst')).toBe(true)
  })

  it('has no trail and no channels for who may not read them, in the sections and on a capsule', async () => {
    const { page } = member
    const sections = page.getByRole('navigation', { name: 'Sections' })
    const { id } = await anonymous.json<{ id: string }>('POST', '/v1/capsules', {
      ...olgas,
      json: { timeout_sec: 600 },
    })
    try {
      await visit(member, platform, `/dashboard/capsules/${id}`)
      const tabs = page.getByRole('navigation', { name: 'Of this capsule' })
      await tabs.getByRole('link', { name: 'Checkpoints' }).waitFor()
      for (const [place, name] of [
        [tabs, 'Audit'],
        [sections, 'Audit'],
        [sections, 'Channels'],
      ] as const)
        expect([name, await place.getByRole('link', { name }).count()]).toEqual([name, 0])
      await visit(owner, platform, `/dashboard/capsules/${id}`)
      await owner.page
        .getByRole('navigation', { name: 'Of this capsule' })
        .getByRole('link', { name: 'Audit' })
        .waitFor()
      await visit(owner, platform, '/dashboard/team')
      await visit(member, platform, '/dashboard/capsules')
    } finally {
      await anonymous.json('DELETE', `/v1/capsules/${id}`, olgas)
    }
  })

  it('ends with the membership, and the page says so', async () => {
    const { page } = member
    await owner.page.locator(`[data-member="${memberEmail}"]`).getByRole('button', { name: 'Remove' }).click()
    await owner.page.getByRole('dialog').getByRole('button', { name: 'Remove', exact: true }).click()
    await page.getByText("You are not in Olga's Team any more. This is Vera's Team.").waitFor()
    await page.getByRole('button', { name: "Team: Vera's Team" }).waitFor()
    await page.getByRole('button', { name: 'Launch the first one' }).waitFor()
    expect(await violations(member)).toEqual([])
    await page.getByRole('button', { name: 'Close message' }).click()
    await page.reload()
    await page.getByRole('button', { name: 'Launch the first one' }).waitFor()
    expect(await page.getByText('any more').count()).toBe(0)
  })
})
