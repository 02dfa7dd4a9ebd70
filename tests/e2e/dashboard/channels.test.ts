import { once } from 'node:events'
import { createServer } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { expectAccessible, PATIENT, signIn, type Tab, useBrowser, violations, visit } from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
const anonymous = new Api(platform, '')
const events: string[] = []
/** What the target says. */
let status = 204
const server = createServer(async (request, response) => {
  let body = ''
  for await (const chunk of request) body += chunk
  events.push(JSON.parse(body).event)
  response.writeHead(status).end(status === 204 ? undefined : 'not like that')
})
let url = ''
let person: ReturnType<typeof bearer>
let tab: Tab

/** Something happens that the channel is told of. */
const makeKey = (name: string) =>
  anonymous.json('POST', '/v1/api-keys', { ...person, json: { name, scopes: ['read'] } })
const delivery = (event: string, state: string) =>
  tab.page.locator(`[data-delivery="${event}"]`).filter({ hasText: state })

/** Where a team's events go, by the page alone; the target is a server of this test. */
describe.skipIf(noBrowser !== '')(`the pages of channels ${noBrowser}`, () => {
  beforeAll(async () => {
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    url = `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/hook`
    await firstAdmin(platform)
    const { email } = await addPerson(platform, 'Grete')
    person = bearer(await logIn(platform, email))
    tab = await browser.open()
    await signIn(tab, platform, email)
  })
  afterAll(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  it('make nothing that the target does not take, then one that it does, and show its secret once', async () => {
    const { page, problems } = tab
    await page.getByRole('link', { name: 'Channels' }).click()
    await page.getByRole('heading', { name: 'No channels yet' }).waitFor()
    await page.getByRole('button', { name: 'New channel' }).click()
    const dialog = page.getByRole('dialog', { name: 'New channel' })
    await dialog.getByLabel('Name').fill('ours')
    await dialog.getByLabel('Send to').selectOption('Telegram')
    await dialog.getByLabel('Token of the bot').waitFor()
    await dialog.getByLabel('Send to').selectOption('Webhook')
    await dialog.getByLabel('URL').fill(url)
    await dialog.getByLabel('Everything that happens in the team').uncheck()
    await dialog.locator('[data-filter="capsule.*"]').uncheck()
    await dialog.locator('summary', { hasText: 'api key' }).click()
    await dialog.locator('[data-filter="api_key.created"]').check()
    expect(await violations(tab)).toEqual([])
    status = 500
    await dialog.getByRole('button', { name: 'Make the channel' }).click()
    await dialog.getByRole('alert').getByText('channel_test_failed').waitFor()
    status = 204
    await dialog.getByRole('button', { name: 'Make the channel' }).click()
    const secret = await page.locator('[data-revealed="the secret"]').innerText()
    expect(secret).toMatch(/^whsec_/)
    await page.keyboard.press('Escape')
    await page.locator('[data-channel=ours] [data-channel-state=on]').waitFor()
    expect(events).toEqual(['channel.test', 'channel.test'])
    await page.reload()
    await page.locator('[data-channel=ours]').getByText('api_key.created').waitFor()
    expect(await page.content()).not.toContain(secret)
    // The browser reports each answer that is an error; that one is meant.
    expect(problems.splice(0).filter((problem) => !problem.includes('502'))).toEqual([])
  })

  it('show what became of each event, and send again what was given up', async () => {
    const { page, problems } = tab
    await page.locator('[data-channel=ours] a').click()
    await page.getByRole('heading', { name: 'ours', level: 1 }).waitFor()
    await page.getByText('Nothing that it is told of has happened yet').waitFor()
    await makeKey('one')
    await delivery('api_key.created', 'delivered').waitFor()
    status = 400
    await makeKey('two')
    await delivery('api_key.created', 'dead').waitFor()
    await page.getByRole('link', { name: 'given up' }).click()
    await page.waitForURL('**?state=dead')
    await page.reload()
    await delivery('api_key.created', 'dead').waitFor()
    expect(await page.locator('[data-delivery]').count()).toBe(1)
    await page.getByRole('button', { name: /^Request and answer/ }).click()
    await page.getByLabel('Request', { exact: true }).getByText('webhook-signature').waitFor()
    await page.getByLabel('Answer', { exact: true }).getByText('not like that').waitFor()
    await expectAccessible(tab)
    status = 204
    await page.getByRole('button', { name: 'Send all given up again' }).click()
    await page.getByText('1 event to be sent again').waitFor()
    await page.locator('[data-delivery]').waitFor({ state: 'detached' })
    await page.getByRole('link', { name: 'delivered' }).click()
    await expect.poll(() => page.locator('[data-delivery]').count(), PATIENT).toBe(2)
    expect(problems).toEqual([])
  })

  it('test it, pause it, give it another secret, other events and another address, and delete it', async () => {
    const { page, problems } = tab
    const actions = page.getByRole('button', { name: /^Actions for/ })
    const count = events.length
    status = 204
    await page.getByRole('button', { name: 'Send a test' }).click()
    await page.getByText('took the message after').waitFor()
    expect(events.slice(count)).toEqual(['channel.test'])
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.locator('[data-channel-state=paused]').waitFor()
    await page.getByRole('button', { name: 'Go on' }).click()
    await page.locator('[data-channel-state=on]').waitFor()
    await actions.click()
    await page.getByRole('menuitem', { name: 'Another secret…' }).click()
    await page.getByRole('button', { name: 'Make another secret' }).click()
    await page.locator('[data-revealed="the secret"]', { hasText: 'whsec_' }).waitFor()
    await page.keyboard.press('Escape')
    await actions.click()
    await page.getByRole('menuitem', { name: 'Name and events…' }).click()
    await page.getByRole('dialog').getByLabel('Name').fill('theirs')
    await page.getByLabel('Everything that happens in the team').check()
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByRole('heading', { name: 'theirs', level: 1 }).waitFor()
    await page.getByText('everything').waitFor()
    await actions.click()
    await page.getByRole('menuitem', { name: 'Address anew…' }).click()
    await page.getByLabel('URL').fill('https://127.0.0.2/hook')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByRole('dialog').getByText('target_refused').waitFor()
    await page.getByLabel('URL').fill(`${url}/other`)
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    await actions.click()
    await page.getByRole('menuitem', { name: 'Delete…' }).click()
    await page.getByRole('button', { name: 'Delete', exact: true }).click()
    await page.getByRole('heading', { name: 'No channels yet' }).waitFor()
    await page.goBack()
    await page.getByText('channel_not_found').waitFor()
    const meant = /400|404/
    expect(problems.splice(0).filter((problem) => !meant.test(problem))).toEqual([])
    await visit(tab, platform, '/dashboard/channels')
    await page.getByRole('heading', { name: 'Channels', level: 1 }).waitFor()
    expect(problems).toEqual([])
  })
})
