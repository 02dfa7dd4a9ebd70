import { execFileSync } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { registryLogin, TestRegistry, tarOf, writeOciLayout } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import {
  expectAccessible,
  openViewer,
  PATIENT,
  signIn,
  type Tab,
  useBrowser,
  violations,
  visit,
} from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
const anonymous = new Api(platform, '')
const TEMPLATES = '/dashboard/templates'
/** The platform of this suite fetches from there, at any port. */
const ADDRESS = '127.0.0.2'
/** Builds on an emulated machine, two suites beside. */
const BUSY_MS = 600_000
const WRONG = 'not the password'
let scratch = ''
let registry: TestRegistry | undefined
/** In the registry, which gives it to nobody without a login. */
let image = ''
/** As `docker save` writes it. */
let saved = ''
let tab: Tab
let owner: ReturnType<typeof bearer>
let team = ''

const authority = () => registry?.authority ?? ''
const row = () => tab.page.locator(`[data-registry="${authority()}"]`)
const state = (name: string) => tab.page.locator(`header [data-build-state=${name}]`)
const reference = () => tab.page.getByRole('textbox', { name: 'Image', exact: true })
const choose = (file: Parameters<ReturnType<typeof tab.page.locator>['setInputFiles']>[0]) =>
  tab.page.locator('input[aria-label="Image or export"]').setInputFiles(file)

/** An image of one program, as small as they come. */
async function writeImage(): Promise<string> {
  const root = join(scratch, 'root')
  await mkdir(root)
  await copyFile('/bin/busybox', join(root, 'busybox'))
  const layout = join(scratch, 'layout')
  await writeOciLayout(layout, [{ layers: [tarOf(root)], config: {} }])
  return layout
}

/** Without the errors of these answers, which a browser reports whether a page expects them or not. */
function unexpected({ problems }: Tab, ...expected: readonly number[]): readonly string[] {
  return problems.splice(0).filter((problem) => !expected.some((status) => problem.includes(`status of ${status}`)))
}

/** Templates of images and files, by the page alone; each test goes on with what the one before has made. */
describe.skipIf(noBrowser !== '')(`the pages of registries, images and files ${noBrowser}`, () => {
  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'wrenn-e2e-dashboard-images-'))
    await firstAdmin(platform)
    const { email } = await addPerson(platform, 'Ilse')
    const session = await logIn(platform, email)
    owner = bearer(session)
    team = session.team_id ?? ''
    registry = await TestRegistry.start({ dir: join(scratch, 'registry'), address: ADDRESS, needsLogin: true })
    const layout = await writeImage()
    image = registry.push(layout, 'team/tiny:1')
    saved = join(scratch, 'tiny.tar')
    const words = ['--insecure-policy', 'copy', '--quiet', `oci:${layout}:image`, `docker-archive:${saved}:tiny:1`]
    execFileSync('skopeo', words)
    tab = await browser.open()
    await signIn(tab, platform, email)
  })

  /** Templates and logins go with their team. */
  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]()
    if (scratch !== '') await rm(scratch, { recursive: true, force: true })
    if (team !== '') await anonymous.json('DELETE', `/v1/teams/${team}`, owner)
  })

  it('teach what a login is for, say beside each field what is wrong, and show no secret again', async () => {
    const { page } = tab
    await page.getByRole('link', { name: 'Templates' }).click()
    await page.getByRole('link', { name: 'Registries' }).click()
    await page.getByRole('heading', { name: 'No logins yet' }).waitFor()
    await expectAccessible(tab)
    await page.getByRole('button', { name: 'New login' }).click()
    const dialog = page.getByRole('dialog', { name: 'New login' })
    await dialog.getByLabel('Registry').fill('no registry')
    await dialog.getByLabel('User').fill('us:er')
    await dialog.getByLabel('Password or token').fill(WRONG)
    await dialog.getByRole('button', { name: 'Keep the login' }).click()
    await dialog.getByText('It must be host or host:port').waitFor()
    expect(await dialog.getByLabel('Registry').evaluate((input) => input === document.activeElement)).toBe(true)
    await dialog.getByLabel('Registry').fill(`http://${authority()}/v2/`)
    await dialog.getByRole('button', { name: 'Keep the login' }).click()
    await dialog.getByText('It must not contain a colon.').waitFor()
    expect(await dialog.getByLabel('User').getAttribute('aria-invalid')).toBe('true')
    expect(await violations(tab)).toEqual([])
    await dialog.getByLabel('User').fill(registryLogin.username)
    await dialog.getByRole('button', { name: 'Keep the login' }).click()
    await row().getByText(registryLogin.username, { exact: true }).waitFor()
    await expectAccessible(tab)
    await page.reload()
    await row().waitFor()
    expect(await page.content()).not.toContain(WRONG)
    await page.getByRole('button', { name: `Change the login at ${authority()}` }).click()
    const again = page.getByRole('dialog', { name: `Change the login at ${authority()}` })
    expect(await again.getByLabel('User').inputValue()).toBe(registryLogin.username)
    expect(await again.getByLabel('Password or token').inputValue()).toBe('')
    await page.keyboard.press('Escape')
    await again.waitFor({ state: 'detached' })
    expect(unexpected(tab, 400)).toEqual([])
  })

  it(
    'make a template of an image of a registry, once its login is right',
    async () => {
      const { page } = tab
      await visit(tab, platform, `${TEMPLATES}/builds/new/image`)
      await reference().fill('Not An Image')
      await page.getByLabel('Name').fill('x')
      await page.getByRole('button', { name: 'Build', exact: true }).click()
      await page.getByText('It must be an image as').waitFor()
      await page.getByLabel('Name').fill('')
      await reference().fill(image)
      await page.locator('[data-asks]').getByText(`is asked as ${registryLogin.username}`).waitFor()
      expect(await page.getByLabel('Name').inputValue()).toBe('tiny')
      await expectAccessible(tab)
      await page.getByRole('button', { name: 'Build', exact: true }).click()
      await page.waitForURL(/\/builds\/bld-/, PATIENT)
      await state('error').waitFor()
      await expectAccessible(tab)
      await page.getByRole('link', { name: 'its registry' }).click()
      await page.getByRole('button', { name: `Change the login at ${authority()}` }).click()
      const dialog = page.getByRole('dialog', { name: `Change the login at ${authority()}` })
      await dialog.getByLabel('Password or token').fill(registryLogin.password)
      await dialog.getByRole('button', { name: 'Change', exact: true }).click()
      await dialog.waitFor({ state: 'detached' })
      await visit(tab, platform, `${TEMPLATES}/builds/new/image`)
      await reference().fill(image)
      await page.getByRole('button', { name: 'Build', exact: true }).click()
      await page.waitForURL(/\/builds\/bld-/, PATIENT)
      await state('ready').waitFor()
      expect(unexpected(tab)).toEqual([])
    },
    BUSY_MS,
  )

  it(
    'make a template of a file, which is sent while one looks on and may be stopped',
    async () => {
      const { page } = tab
      await visit(tab, platform, `${TEMPLATES}/builds/new/file`)
      await choose({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('hello') })
      await page.getByRole('alert').getByText('notes.txt is neither an image nor an export').waitFor()
      await expectAccessible(tab)
      await choose(saved)
      await page.locator('[data-file="tiny.tar"]').getByText('an image, as a tar').waitFor()
      expect(await page.getByRole('alert').count()).toBe(0)
      await page.getByLabel('Name').fill('of-file')
      await page.getByLabel('Image in the file').fill('tiny:1')
      const held = /\/v3\/template-files\//
      await page.route(held, () => {})
      await page.getByRole('button', { name: 'Build', exact: true }).click()
      await page.locator('[data-stage=sending]').waitFor()
      expect(await violations(tab)).toEqual([])
      await page.getByRole('button', { name: 'Stop' }).click()
      await page.locator('[data-stage]').waitFor({ state: 'detached' })
      await page.unroute(held)
      await page.getByRole('button', { name: 'Build', exact: true }).click()
      await page.waitForURL(/\/builds\/bld-/, PATIENT)
      await state('ready').waitFor()
      await page.locator('[data-log]').getByText('FROM tiny.tar').waitFor()
      await visit(tab, platform, `${TEMPLATES}/builds?name=of-file`)
      for (const word of ['ready', 'cancelled']) await page.locator(`[data-build-state=${word}]`).waitFor()
      expect(unexpected(tab)).toEqual([])
    },
    BUSY_MS,
  )

  it(
    'save a template as a file, and make one of it again',
    async () => {
      const { page } = tab
      await visit(tab, platform, TEMPLATES)
      await page.getByRole('button', { name: 'Export of-file' }).click()
      const dialog = page.getByRole('dialog', { name: 'Export of-file' })
      await dialog.waitFor()
      expect(await violations(tab)).toEqual([])
      const [download] = await Promise.all([
        page.waitForEvent('download', PATIENT),
        dialog.getByRole('button', { name: 'Download' }).click(),
      ])
      expect(download.suggestedFilename()).toBe('of-file.wrenn')
      const kept = join(scratch, 'of-file.wrenn')
      await download.saveAs(kept)
      await page.getByRole('link', { name: 'Import' }).click()
      const whole = await readFile(kept)
      const damaged = join(scratch, 'damaged.wrenn')
      await writeFile(damaged, Buffer.concat([whole.subarray(0, 100), Buffer.from('?'), whole.subarray(101)]))
      await choose(damaged)
      await page.locator('[data-file="damaged.wrenn"]').getByText('an export of the template of-file').waitFor()
      await page.getByRole('button', { name: 'Import', exact: true }).click()
      await page.getByRole('alert').getByText('damaged.wrenn is damaged').waitFor()
      await choose(kept)
      await page.getByRole('alert').waitFor({ state: 'detached' })
      expect(await page.getByLabel('Name').inputValue()).toBe('of-file')
      await page.getByLabel('Name').fill('again')
      await expectAccessible(tab)
      await page.getByRole('button', { name: 'Import', exact: true }).click()
      await page.waitForURL(/\/builds\/bld-/, PATIENT)
      await state('ready').waitFor()
      expect(unexpected(tab)).toEqual([])
    },
    BUSY_MS,
  )

  it('offer nothing but a look to who may only look', async () => {
    const viewer = await openViewer(browser, platform, { name: 'Veit', team, called: "Ilse's Team", owner })
    const { page } = viewer
    await visit(viewer, platform, `${TEMPLATES}/registries?new=ghcr.io`)
    await page.locator(`[data-registry="${authority()}"]`).waitFor()
    expect(await page.getByRole('button', { name: /login/ }).count()).toBe(0)
    expect(await page.getByRole('dialog').count()).toBe(0)
    await visit(viewer, platform, TEMPLATES)
    await page.locator('[data-template=again]').waitFor()
    expect(await page.getByRole('button', { name: 'Export again' }).count()).toBe(0)
    for (const kind of ['image', 'file']) {
      await visit(viewer, platform, `${TEMPLATES}/builds/new/${kind}`)
      await page.getByText('does not allow builds').waitFor()
    }
    expect(viewer.problems).toEqual([])
  })

  it('forget a login after a question', async () => {
    const { page } = tab
    await visit(tab, platform, `${TEMPLATES}/registries`)
    await page.getByRole('button', { name: `Forget the login at ${authority()}` }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Forget', exact: true }).click()
    await page.getByRole('heading', { name: 'No logins yet' }).waitFor()
    expect(unexpected(tab)).toEqual([])
  })
})
