import { randomBytes } from 'node:crypto'
import type { Page } from 'playwright-core'
import { beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import {
  answer,
  expectAccessible,
  expectNothingBeside,
  PATIENT,
  PHONE,
  signIn,
  useBrowser,
  violations,
  visit,
} from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn, PASSWORD } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
const admin = 'ada@example.com'
/** Apart from what an earlier run of a kept directory has made. */
const mark = randomBytes(4).toString('hex')

beforeAll(async () => {
  await firstAdmin(platform)
})

describe.skipIf(noBrowser !== '')(`the platform's own pages ${noBrowser}`, () => {
  it('make an account whose owner activates it, and disable it', async () => {
    const tab = await browser.open()
    const { page, problems } = tab
    await signIn(tab, platform, admin)
    await page.getByRole('link', { name: 'Platform' }).click()
    await page.getByRole('heading', { name: 'Accounts', level: 1 }).waitFor()
    expect(await violations(tab)).toEqual([])
    const email = `new-${mark}@example.com`
    await page.getByRole('button', { name: 'New account' }).click()
    await page.getByLabel('Mail address').fill(email)
    await page.getByLabel('Name', { exact: true }).fill('Newcomer')
    await page.getByRole('button', { name: 'Make the account' }).click()
    const link = (await page.locator('[data-revealed="the link"]').textContent()) ?? ''
    await page.keyboard.press('Escape')
    const row = page.locator(`[data-user="${email}"]`)
    await row.getByText('pending').waitFor()

    const other = await browser.open()
    await other.page.goto(link)
    await other.page.getByRole('button', { name: /^Activate/ }).click()
    await other.page.getByRole('alert').getByText('password').waitFor()
    for (const field of await other.page.locator('input[type=password]').all()) await field.fill(PASSWORD)
    await other.page.getByRole('button', { name: /^Activate/ }).click()
    await other.page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()
    // What only admins may see is not there for them.
    expect(await other.page.getByRole('link', { name: 'Platform' }).count()).toBe(0)
    await visit(other, platform, '/dashboard/admin/teams')
    await other.page.getByRole('heading', { name: 'Not yours to see' }).waitFor()

    await page.reload()
    await row.getByText('active').waitFor()
    await page.getByRole('button', { name: `Actions for ${email}` }).click()
    await page.getByRole('menuitem', { name: 'Disable…' }).click()
    await page.getByRole('button', { name: 'Disable', exact: true }).click()
    await row.getByText('disabled').waitFor()
    await other.page.reload()
    await other.page.waitForURL('**/login*')
    expect(problems).toEqual([])
  })

  it('make a plan and give it to a team, whose limits it is then', async () => {
    await addPerson(platform, `Planned${mark}`)
    const tab = await browser.open({ colorScheme: 'light' })
    const { page, problems } = tab
    await signIn(tab, platform, admin)
    await visit(tab, platform, '/dashboard/admin/plans')
    await page.getByRole('button', { name: 'New plan' }).click()
    const plan = `free-${mark}`
    await page.getByLabel('Name').fill(plan)
    await page.getByLabel('Running capsules').fill('3')
    await page.getByLabel('Files, GiB').fill('0.5')
    await page.getByRole('button', { name: 'Make the plan' }).click()
    await page.locator(`[data-plan=${plan}]`).getByText('Running capsules: 3 · Files: 512 MiB').waitFor()
    expect(await violations(tab)).toEqual([])
    await page.getByRole('button', { name: `Edit ${plan}` }).click()
    await page.getByLabel('Running capsules').fill('')
    await page.getByLabel('vCPUs in use').fill('0')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.locator(`[data-plan=${plan}]`).getByText('vCPUs in use: no limit · Files: 512 MiB').waitFor()

    await page.getByRole('link', { name: 'Teams', exact: true }).click()
    const team = page.locator(`[data-team="Planned${mark}'s Team"]`)
    await team.getByRole('button').click()
    await page.getByLabel('Plan', { exact: true }).selectOption(plan)
    await page.getByRole('button', { name: 'Save' }).click()
    await team.getByText(plan).waitFor()
    await team.getByRole('button').click()
    await page.getByText('0 B of 512 MiB').waitFor()
    expect(await violations(tab)).toEqual([])
    await page.reload()
    await page.getByText('0 B of 512 MiB').waitFor()
    await page.keyboard.press('Escape')
    await page.getByText('0 B of 512 MiB').waitFor({ state: 'detached' })
    await page.getByLabel('Search teams').fill(`Planned${mark}`)
    await expect.poll(() => new URL(page.url()).search, PATIENT).toBe(`?q=Planned${mark}`)
    await page.reload()
    await team.waitFor()
    expect(await page.locator('[data-team]').count()).toBe(1)

    await page.getByRole('link', { name: 'Plans', exact: true }).click()
    await page.getByRole('button', { name: `Delete ${plan}` }).click()
    await page.getByRole('button', { name: 'Delete', exact: true }).click()
    await page.getByText('in_use').waitFor()
    // The browser reports each answer that is an error; that one is meant.
    expect(problems.filter((problem) => !problem.includes('409'))).toEqual([])
  })

  it('show the capsules of all teams, what happened in none, and how the platform does', async () => {
    const name = `theirs-${mark}`
    const session = await logIn(platform, (await addPerson(platform, `Owner${mark}`)).email)
    const api = new Api(platform, '')
    const json = { name, timeout_sec: 600 }
    const { id } = await api.json<{ id: string }>('POST', '/v1/capsules', { ...bearer(session), json })
    const tab = await browser.open()
    const { page, problems } = tab
    try {
      await signIn(tab, platform, admin)
      await page.getByRole('link', { name: 'Platform' }).click()
      await page.getByRole('navigation', { name: 'Of the platform' }).getByRole('link', { name: 'Capsules' }).click()
      await page.getByRole('heading', { name: 'Capsules of all teams', level: 1 }).waitFor()
      await page.getByLabel('Search capsules').fill(name)
      const row = page.locator(`[data-capsule="${id}"]`)
      await row.locator('[data-state=running]').waitFor()
      await row.getByRole('button', { name: `Owner${mark}'s Team` }).click()
      await page.getByRole('button', { name: `Only of Owner${mark}'s Team` }).waitFor()
      await page.getByLabel('State').selectOption('paused')
      await page.getByText('No capsule like that.').waitFor()
      await api.json('POST', `/v1/capsules/${id}/pause`, bearer(session))
      await page.getByRole('button', { name: 'Look again' }).click()
      await row.locator('[data-state=paused]').waitFor()
      await page.reload()
      await row.locator('[data-state=paused]').waitFor()

      await visit(tab, platform, '/dashboard/admin/audit')
      await page.getByLabel('About', { exact: true }).selectOption('plan')
      await page.getByText('plan.create').first().waitFor()

      await visit(tab, platform, '/dashboard/admin/health')
      await page.locator('[data-host=ready]').getByRole('meter', { name: 'Pool' }).waitFor()
      // Mails of this platform go to a folder.
      await page.locator('[data-problem=mail]').getByText('Set WRENN_SMTP_URL').waitFor()
      for (const colorScheme of ['light', 'dark'] as const) {
        await page.emulateMedia({ colorScheme })
        for (const [path, shown] of watched) {
          await visit(tab, platform, path)
          await page.locator(shown).first().waitFor()
          expect([path, await violations(tab)]).toEqual([path, []])
        }
      }
      await page.setViewportSize(PHONE)
      for (const [path, shown] of watched) {
        await visit(tab, platform, path)
        await page.locator(shown).first().waitFor()
        await expectNothingBeside(tab)
      }
      expect(problems).toEqual([])
    } finally {
      await api.json('DELETE', `/v1/capsules/${id}`, bearer(session))
    }
  })

  it('show what Lago does not have yet, where there is one', async () => {
    const tab = await browser.open()
    const { page, problems } = tab
    await answer(page, '**/v1/admin/health', async (route) => {
      const response = await route.fetch()
      const lago = {
        to: 'lago.example:443',
        waiting: 12,
        refused: 3,
        oldest_waiting_at: new Date(Date.now() - 9_000_000),
      }
      await route.fulfill({ response, json: { ...(await response.json()), lago } })
    })
    await signIn(tab, platform, admin)
    await visit(tab, platform, '/dashboard/admin/health')
    const card = page.getByRole('region', { name: 'Lago' })
    await card.getByText('lago.example:443').waitFor()
    await card.getByText('12, the oldest of 2 h ago').waitFor()
    await card.locator('div', { hasText: 'Refused' }).getByText('3', { exact: true }).waitFor()
    expect(await violations(tab)).toEqual([])
    await page.setViewportSize(PHONE)
    await expectNothingBeside(tab)
    await page.unrouteAll({ behavior: 'wait' })
    await page.reload()
    await page.getByRole('region', { name: 'Mail' }).waitFor()
    expect(await card.count()).toBe(0)
    expect(problems).toEqual([])
  })

  it('say where capsules run, let a machine join, and send a host away with what is on it', async () => {
    const tab = await browser.open()
    const { page, problems } = tab
    const path = '/dashboard/admin/hosts'
    await signIn(tab, platform, admin)
    await page.keyboard.press('Control+k')
    await page.getByRole('combobox', { name: 'Search' }).fill('hosts')
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: "Capsules run on the platform's own machine" }).waitFor()
    expect(new URL(page.url()).pathname).toBe(path)
    expect(await page.getByRole('button', { name: 'New host' }).count()).toBe(0)
    await expectAccessible(tab)

    const machine = await takeHosts(page)
    await visit(tab, platform, `${path}?new=1`)
    await page.getByRole('heading', { name: 'No host yet' }).waitFor()
    const dialog = page.getByRole('dialog', { name: 'New host' })
    await dialog.getByRole('button', { name: 'Make the token' }).click()
    const token = page.locator('[data-revealed="the token"]')
    expect(await token.innerText()).toBe(TOKEN)
    const steps = await page.locator('[data-step]').allInnerTexts()
    expect(steps).toEqual(['sudo wrenn doctor', `sudo wrenn host join ${platform.url}`, 'sudo wrenn up'])
    expect(await violations(tab)).toEqual([])
    await page.keyboard.press('Escape')
    await token.waitFor({ state: 'detached' })
    const row = page.locator(`[data-host="${HOST}"]`)
    await row.locator('[data-host-status=pending]').waitFor()
    expect(await page.content()).not.toContain(TOKEN)
    expect(new URL(page.url()).search).toBe('')

    machine.join()
    await page.reload()
    await row.locator('[data-host-status=online]').waitFor()
    for (const text of ['10.1.2.3:7443', '3 capsules', '1 running', '8 cores, 31.3 GiB of memory', 'ends in 5 d']) {
      await row.getByText(text).waitFor()
    }
    await expectAccessible(tab)
    await row.getByRole('button', { name: `Actions for ${HOST}` }).click()
    await page.getByRole('menuitem', { name: 'New token…' }).click()
    await page.getByRole('button', { name: 'Make the token' }).click()
    await token.waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('button', { name: 'Rotate authority…' }).click()
    await page.getByRole('button', { name: 'Rotate', exact: true }).click()
    await page.getByText('Another authority signs from now on').waitFor()

    const actions = row.getByRole('button', { name: `Actions for ${HOST}` })
    const menu = page.getByRole('menu', { name: `Actions for ${HOST}` })
    await actions.press('ArrowDown')
    await expect.poll(() => menu.evaluate((box) => box.contains(document.activeElement))).toBe(true)
    await page.keyboard.press('Tab')
    await menu.waitFor({ state: 'hidden' })
    await expect.poll(() => actions.evaluate((button) => button === document.activeElement)).toBe(true)

    const cordoned = row.getByText('cordoned', { exact: true })
    expect(await cordoned.count()).toBe(0)
    await row.getByRole('button', { name: `Actions for ${HOST}` }).click()
    await page.getByRole('menuitem', { name: 'Cordon', exact: true }).click()
    await page.getByText(`${HOST} gets no new capsules`).waitFor()
    await cordoned.waitFor()
    await expectAccessible(tab)
    await row.getByRole('button', { name: `Actions for ${HOST}` }).click()
    await page.getByRole('menuitem', { name: 'Uncordon', exact: true }).click()
    await cordoned.waitFor({ state: 'detached' })

    await row.getByRole('button', { name: `Actions for ${HOST}` }).click()
    await page.getByRole('menuitem', { name: 'Tags…' }).click()
    const tagging = page.getByRole('dialog', { name: 'Tags of the host' })
    await tagging.getByLabel('Tags', { exact: true }).fill('gpu eu, gpu')
    expect(await violations(tab)).toEqual([])
    await tagging.getByRole('button', { name: 'Save' }).click()
    await expect.poll(() => row.locator('[data-tag]').allInnerTexts()).toEqual(['gpu', 'eu'])
    await expectAccessible(tab)
    await row.getByRole('button', { name: `Actions for ${HOST}` }).click()
    await page.getByRole('menuitem', { name: 'Tags…' }).click()
    expect(await tagging.getByLabel('Tags', { exact: true }).inputValue()).toBe('gpu eu')
    await page.keyboard.press('Escape')

    await row.getByRole('button', { name: `Actions for ${HOST}` }).click()
    await page.getByRole('menuitem', { name: 'Remove…' }).click()
    const question = page.getByRole('dialog', { name: 'Remove this host?' })
    const phrase = question.getByRole('textbox')
    const remove = question.getByRole('button', { name: 'Remove', exact: true })
    await phrase.fill('lose 2 capsules and 2 templates')
    await remove.click()
    await question.getByText('It must be: lose 3 capsules and 2 templates').waitFor()
    expect(await violations(tab)).toEqual([])
    machine.addCapsule()
    await phrase.fill('lose 3 capsules and 2 templates')
    await remove.click()
    await question.getByRole('alert').getByText('The host has 4 capsules and 2 templates by now.').waitFor()
    await phrase.fill('lose 4 capsules and 2 templates')
    await remove.click()
    await page.getByRole('heading', { name: 'No host yet' }).waitFor()
    expect(machine.changes).toEqual([
      'POST /v1/hosts',
      `POST /v1/hosts/${HOST}/token`,
      'POST /v1/hosts/rotate-authority',
      `POST /v1/hosts/${HOST}/cordon`,
      `POST /v1/hosts/${HOST}/uncordon`,
      `PUT /v1/hosts/${HOST}/tags`,
      `DELETE /v1/hosts/${HOST}?force=true`,
    ])
    expect(problems).toEqual([])
  })
})

const HOST = `host-${'1'.repeat(25)}`
const TOKEN = 'wrj_the-token'

/** Answers for a platform that takes hosts, with one machine; the one of this suite has its capsules itself. */
async function takeHosts(page: Page) {
  const made = { id: HOST, type: 'regular', schedulable: true, tags: [], created_by: 'user-1' }
  const changes: string[] = []
  let host: object | undefined
  let capsules = 3
  await answer(page, /\/v1\/(?:hosts|admin\/health)/, async (route) => {
    const request = route.request()
    const { pathname, search } = new URL(request.url())
    const at = new Date().toISOString()
    if (pathname === '/v1/admin/health') {
      const response = await route.fetch()
      const health = await response.json()
      const use = { ...health.hosts[0], id: HOST, capsules, templates: 2, running_capsules: 1 }
      const nowhere = { ...unused, address: 'nowhere', answers: false }
      return await route.fulfill({ response, json: { ...health, hosts: [host === undefined ? nowhere : use] } })
    }
    if (request.method() === 'GET') return await route.fulfill({ json: host === undefined ? [] : [host] })
    changes.push(`${request.method()} ${pathname}${search}`)
    if (request.method() === 'DELETE') host = undefined
    if (request.method() === 'DELETE' || pathname.endsWith('/rotate-authority'))
      return await route.fulfill({ status: 204 })
    const isCordon = pathname.endsWith('/cordon')
    if (isCordon || pathname.endsWith('/uncordon')) {
      host = { ...host, schedulable: !isCordon }
      return await route.fulfill({ json: host })
    }
    if (pathname.endsWith('/tags')) {
      host = { ...host, ...request.postDataJSON() }
      return await route.fulfill({ json: host })
    }
    host ??= { ...made, status: 'pending', created_at: at, updated_at: at }
    const json = { host, registration_token: TOKEN, registration_expires_at: at }
    return await route.fulfill({ status: 201, json })
  })
  return {
    changes,
    join: () => {
      const at = new Date().toISOString()
      const facts = { address: '10.1.2.3:7443', arch: 'x64', cpu_cores: 8, memory_mb: 32_000, disk_gb: 900 }
      const ends = new Date(Date.now() + 5.5 * 24 * 3600 * 1000).toISOString()
      const heard = { last_heartbeat_at: at, certificate_expires_at: ends, created_at: at, updated_at: at }
      host = { ...made, ...facts, ...heard, status: 'online' }
    },
    addCapsule: () => {
      capsules += 1
    },
  }
}

const unused = { running_capsules: 0, used_vcpus: 0, used_memory_mb: 0, capsules: 0, templates: 0 }

/** Pages, and what is there once they have something to show. */
const watched = [
  ['/dashboard/admin/capsules', '[data-capsule]'],
  ['/dashboard/admin/audit', 'tbody .mono'],
  ['/dashboard/admin/health', '[data-host]'],
] as const
