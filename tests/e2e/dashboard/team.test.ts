import type { ListedTeam } from '@wrenn/protocol'
import { beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { signIn, useBrowser, violations, visit } from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'
import { eventually } from '../harness/wait.js'

const { platform } = usePlatform()
const browser = useBrowser()
const anonymous = new Api(platform, '')

describe.skipIf(noBrowser !== '')(`the page of a team ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
  })

  it('switches the record of commands and file operations on and off', async () => {
    const { email } = await addPerson(platform, 'Hedy')
    const owner = await logIn(platform, email)
    const isOn = async () => {
      const [team] = await anonymous.json<ListedTeam[]>('GET', '/v1/teams', bearer(owner))
      return team?.audit_data_access
    }
    const tab = await browser.open()
    await signIn(tab, platform, email)
    await visit(tab, platform, '/dashboard/team')
    const box = tab.page.getByLabel('Record commands and file operations')
    await box.waitFor()
    expect([await box.isChecked(), await isOn()]).toEqual([false, false])
    await box.click()
    await eventually('the record to be on', async () => (await isOn()) || undefined)
    await tab.page.reload()
    await tab.page.locator('input:checked').waitFor()
    expect(await box.isChecked()).toBe(true)
    expect(await violations(tab)).toEqual([])
    await box.click()
    await eventually('the record to be off', async () => (await isOn()) === false || undefined)
    expect(tab.problems).toEqual([])
  })
})
