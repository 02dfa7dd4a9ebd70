import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import {
  answer,
  expectAccessible,
  openBeside,
  PATIENT,
  signIn,
  type Tab,
  typeLine,
  untilScreen,
  useBrowser,
  violations,
  visit,
} from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'
import { pidsOf } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform } = usePlatform()
const hasStore = platform.env.WRENN_OBJECT_STORE !== undefined
if (!hasStore)
  process.stdout.write('Hibernation by pages is left out: radosgw is not installed, which stores it in tests.\n')
const browser = useBrowser()
let tab: Tab
let email = ''
let path = ''

/** These tests go on with the capsule that the first one launches, as a person does. */
describe.skipIf(noBrowser !== '')(`a capsule in the dashboard ${noBrowser}`, () => {
  beforeAll(async () => {
    await firstAdmin(platform)
    email = (await addPerson(platform, 'Alan')).email
    tab = await browser.open()
    await signIn(tab, platform, email)
  })

  afterAll(async () => {
    const session = await logIn(platform, email)
    const api = new Api(platform, '')
    for (const { id } of await api.json<{ id: string }[]>('GET', '/v1/capsules', bearer(session))) {
      await api.json('DELETE', `/v1/capsules/${id}`, bearer(session))
    }
  })

  it('is launched with a few clicks and runs a command in its terminal', async () => {
    const { page } = tab
    await page.getByText('No capsules yet').waitFor()
    await page.getByRole('button', { name: 'Launch the first one' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Name').fill('first')
    await dialog.getByRole('button', { name: 'Launch', exact: true }).click()
    await page.getByRole('heading', { name: 'first' }).waitFor()
    await page.locator('[data-state=running]').first().waitFor()
    path = new URL(page.url()).pathname
    expect(path).toMatch(/^\/dashboard\/capsules\/cl-[0-9a-z]{25}$/)
    await page.getByRole('link', { name: 'Terminal' }).click()
    await untilScreen(tab, /#/)
    await typeLine(tab, 'echo "the answer is $((6*7))"', /the answer is 42/)
  })

  it('has its terminal again after a reload, with what ran in it', async () => {
    await typeLine(tab, 'marker=kept; sleep 9999 & jobs', /Running/)
    await tab.page.reload()
    await untilScreen(tab, /the answer is 42/)
    await typeLine(tab, 'echo "$marker $(jobs | wc -l)"', /kept 1/)
    await tab.page.getByRole('button', { name: 'New terminal' }).click()
    await untilScreen(tab, /#/)
    await typeLine(tab, 'echo "second [$marker]"', /second \[\]/)
    const second = new URL(tab.page.url()).search
    expect(second).toMatch(/^\?tab=shell-\d$/)
    await tab.page.reload()
    await untilScreen(tab, /second \[\]/)
    expect(new URL(tab.page.url()).search).toBe(second)
  })

  it('keeps its terminal while the server starts again, and its list goes on by itself', async () => {
    const list = await openBeside(tab)
    await visit(list, platform, '/dashboard/capsules')
    await list.page.locator('[data-live=live]').waitFor()
    await list.page.evaluate('globalThis.isFirst = true')
    await tab.page.getByRole('button', { name: '1 · shell-1' }).click()
    const { 'control-plane': before } = await pidsOf(platform)
    if (before === undefined) throw new Error('The control plane runs.')
    process.kill(before, 'SIGKILL')
    await eventually('another control plane', async () => {
      const { 'control-plane': now } = await pidsOf(platform)
      return now !== undefined && now !== before ? true : undefined
    })
    await typeLineUntilHeard('echo "still $marker"', /still kept/)
    const session = await logIn(platform, email)
    const id = path.split('/').at(-1)
    for (const name of ['renamed', 'first']) {
      await new Api(platform, '').json('PATCH', `/v1/capsules/${id}`, { ...bearer(session), json: { name } })
      await list.page.locator('[data-capsule]').getByText(name, { exact: true }).waitFor()
    }
    await list.page.locator('[data-live=live]').waitFor()
    expect(await list.page.evaluate('globalThis.isFirst')).toBe(true)
    await list.page.close()
  })

  /** What is typed while the connection is down may be lost, as the page says; so it is typed again. */
  async function typeLineUntilHeard(line: string, expected: RegExp): Promise<void> {
    await tab.page.locator('[data-terminal]:visible .xterm-helper-textarea').focus()
    await eventually(
      `the terminal to answer ${line}`,
      async () => {
        await tab.page.keyboard.type(`${line}\n`)
        await tab.page.waitForTimeout(2_000)
        const text = await tab.page.locator('[data-terminal]:visible .xterm-rows').innerText()
        return expected.test(text.replaceAll('\u00a0', ' ')) ? true : undefined
      },
      PATIENT.timeout,
    )
  }

  it('finds what its terminal has said, and asks before it opens an address', async () => {
    const { page } = tab
    await typeLine(tab, 'echo needle https://a.example/; printf "\\e[48;2;10;20;30mtrue\\e[0m\\n"; seq 1 200', /^200$/m)
    const coloured = page.locator('.xterm-rows span', { hasText: /^true$/ })
    await page.getByRole('button', { name: 'Search the terminal' }).click()
    const field = page.getByRole('searchbox', { name: 'Search the terminal' })
    await field.fill('nobody has said this')
    await page.getByText('not there').waitFor()
    await field.fill('needle https')
    await untilScreen(tab, /needle https/)
    expect(await coloured.evaluate((span) => getComputedStyle(span).backgroundColor)).toBe('rgb(10, 20, 30)')
    const line = page.locator('.xterm-rows > div', { hasText: /^needle.https/ })
    const box = await line.boundingBox()
    if (box === null) throw new Error('the line is not on the screen')
    await page.mouse.move(box.x + 90, box.y + box.height / 2)
    await page.mouse.move(box.x + 92, box.y + box.height / 2)
    await page.locator('.xterm-cursor-pointer').waitFor()
    await page.mouse.click(box.x + 92, box.y + box.height / 2)
    await page.getByRole('dialog').getByText('https://a.example/').waitFor()
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.getByRole('button', { name: 'Close the search' }).click()
    expect(tab.problems.filter((problem) => problem.includes('style'))).toEqual([])
  })

  it('starts a command that goes on, and has its output in its address', async () => {
    const { page } = tab
    await page.getByRole('link', { name: 'Processes' }).click()
    await page.getByRole('button', { name: 'Start', exact: true }).click()
    await page.getByRole('dialog').getByLabel('Command').fill('echo said once; exec sleep 9999')
    await page.getByRole('dialog').getByRole('button', { name: 'Start', exact: true }).click()
    const row = page.locator('[data-process]', { hasText: 'said once' })
    await row.getByRole('button', { name: 'Output' }).click()
    const output = page.getByRole('dialog', { name: 'Output' })
    await output.getByText('said once', { exact: true }).waitFor()
    expect(new URL(page.url()).searchParams.get('output')).toBe(await row.getAttribute('data-process'))
    await page.reload()
    await output.getByText('said once', { exact: true }).waitFor()
    expect(await violations(tab)).toEqual([])
    await page.keyboard.press('Escape')
    await output.waitFor({ state: 'detached' })
    expect(new URL(page.url()).search).toBe('')
    await row.getByRole('button', { name: 'End' }).click()
    await row.getByText('ended').waitFor()
  })

  it('takes files in, shows them, gives them back and deletes them', async () => {
    const { page } = tab
    await page.getByRole('link', { name: 'Files' }).click()
    const content = Buffer.from('line one\nline two\n')
    await page.getByLabel('Files to upload').setInputFiles([
      { name: 'notes.txt', mimeType: 'text/plain', buffer: content },
      { name: 'dot.png', mimeType: 'image/png', buffer: onePixel },
    ])
    await page.locator('[data-file="notes.txt"]').waitFor()
    await page.getByRole('link', { name: 'notes.txt' }).click()
    await page.getByRole('region', { name: 'Content' }).getByText('line two').waitFor()
    expect(new URL(page.url()).search).toBe('?path=%2Froot&file=notes.txt')
    await page.reload()
    await page.getByRole('region', { name: 'Content' }).getByText('line two').waitFor()
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Download notes.txt' }).click(),
    ])
    expect(await readFile(await download.path(), 'utf8')).toBe(content.toString())
    await page.getByRole('link', { name: 'dot.png' }).click()
    await page.getByRole('img', { name: 'dot.png' }).waitFor()
    const [archive] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'As a tar' }).click(),
    ])
    expect(archive.suggestedFilename()).toBe('root.tar')
    expect((await readFile(await archive.path())).includes('root/notes.txt')).toBe(true)
    await page.getByRole('button', { name: 'Delete dot.png' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click()
    await page.locator('[data-file="dot.png"]').waitFor({ state: 'detached' })
  })

  it('shows a folder of thousands of files, of which those around the screen are there', async () => {
    const { page } = tab
    const FILES = 3_000
    const session = await logIn(platform, email)
    const script = `mkdir many && cd many && seq -f %05g 1 ${FILES} | xargs touch`
    const json = { cmd: 'sh', args: ['-c', script], cwd: '/root' }
    await new Api(platform, '').json('POST', `/v1/capsules/${path.split('/').at(-1)}/exec`, {
      ...bearer(session),
      json,
    })
    // What is in no folder yet is said how to bring there.
    await visit(tab, platform, `${path}/files?path=%2Fsrv`)
    await page.getByText('Nothing is here').waitFor()
    await page.getByRole('tab', { name: 'CLI' }).waitFor()
    expect(await violations(tab)).toEqual([])
    await visit(tab, platform, `${path}/files?path=%2Froot%2Fmany`)
    const [first, last] = [page.locator('[data-file="00001"]'), page.locator(`[data-file="0${FILES}"]`)]
    const rows = page.locator('[data-file]')
    await first.waitFor()
    // With the head and the way up.
    expect(await page.getByRole('table').getAttribute('aria-rowcount')).toBe(String(FILES + 2))
    expect(await rows.count()).toBeLessThan(FILES / 10)
    const seenAfter = async (to: number, row: typeof last): Promise<boolean> => {
      await page.evaluate(`scrollTo(0, ${to})`)
      return await row.isVisible()
    }
    await expect.poll(() => seenAfter(1e9, last), PATIENT).toBe(true)
    expect(await last.getAttribute('aria-rowindex')).toBe(String(FILES + 2))
    await first.waitFor({ state: 'detached' })
    expect(await rows.count()).toBeLessThan(FILES / 10)
    expect(await violations(tab)).toEqual([])
    await expect.poll(() => seenAfter(0, first), PATIENT).toBe(true)
  })

  it('edits a file as it is, and not over the change of somebody else', async () => {
    const { page } = tab
    const session = await logIn(platform, email)
    const api = new Api(platform, '')
    const file = `/v1/capsules/${path.split('/').at(-1)}/files`
    const query = { path: '/root/win.txt' }
    const put = async (body: string) => await api.json('PUT', file, { ...bearer(session), query, body })
    const get = async () => (await api.call('GET', file, { ...bearer(session), query })).bytes.toString()
    await put('\ufeffone\r\ntwo\r\n')
    const shown = page.getByRole('region', { name: 'Content' })
    const field = page.getByRole('textbox', { name: 'Content of win.txt' })
    await visit(tab, platform, `${path}/files?path=%2Froot&file=win.txt`)
    await page.getByRole('button', { name: 'Edit' }).click()
    await field.fill('one\nthree\n')
    await page.getByRole('button', { name: 'Save' }).click()
    await shown.getByText('three').waitFor()
    expect(await get()).toBe('\ufeffone\r\nthree\r\n')

    await page.getByRole('button', { name: 'Edit' }).click()
    await field.fill('mine\n')
    await put('theirs\n')
    await page.getByRole('button', { name: 'Save' }).click()
    await page.getByRole('alert').getByText('Somebody has changed the file').waitFor()
    expect(await get()).toBe('theirs\n')
    await page.getByRole('button', { name: 'Replace it with mine' }).click()
    await shown.getByText('mine').waitFor()
    expect(await get()).toBe('\ufeffmine\r\n')
    tab.problems.length = 0
  })

  it('goes back to a checkpoint, and shows what differs', async () => {
    const { page } = tab
    await page.getByRole('link', { name: 'Checkpoints' }).click()
    await page.getByRole('button', { name: 'Checkpoint', exact: true }).click()
    await page.getByRole('dialog').getByLabel('Name').fill('before')
    await page.getByRole('button', { name: 'Save this moment' }).click()
    await page.locator('[data-checkpoint=before]').getByText('here').waitFor()
    await page.getByRole('link', { name: 'Files' }).click()
    await page.getByRole('button', { name: 'Delete notes.txt' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click()
    await page.locator('[data-file="notes.txt"]').waitFor({ state: 'detached' })
    await page.getByRole('link', { name: 'Checkpoints' }).click()
    await page.getByRole('button', { name: 'Compare' }).click()
    await page.getByText('/root/notes.txt').waitFor()
    await page.getByRole('button', { name: 'Go back to before' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Go back', exact: true }).click()
    await page.getByText('Everything is as it was at before').waitFor()
    await page.getByRole('link', { name: 'Files' }).click()
    await page.locator('[data-file="notes.txt"]').waitFor()
  })

  it('forks a checkpoint, and makes a template of it that a capsule starts from, while it goes on as it is', async () => {
    const { page } = tab
    await page.getByRole('link', { name: 'Terminal' }).click()
    await untilScreen(tab, /#/)
    await typeLine(tab, 'echo "then" > /root/point; sync; echo "wrote $((1+1))"', /wrote 2/)
    await page.getByRole('link', { name: 'Checkpoints' }).click()
    await page.getByRole('button', { name: 'Checkpoint', exact: true }).click()
    await page.getByRole('dialog').getByLabel('Name').fill('base')
    await page.getByRole('button', { name: 'Save this moment' }).click()
    await page.locator('[data-checkpoint=base]').getByText('here').waitFor()
    await page.getByRole('link', { name: 'Files' }).click()
    await page.getByRole('button', { name: 'Delete point' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Delete', exact: true }).click()
    await page.locator('[data-file="point"]').waitFor({ state: 'detached' })

    await page.getByRole('link', { name: 'Checkpoints' }).click()
    await page.getByRole('button', { name: 'Make a template of base' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('Name of the template').fill('no/name')
    await dialog.getByRole('button', { name: 'Make the template' }).click()
    await dialog.getByRole('alert').getByText('invalid_request').waitFor()
    const template = `pointed-${path.slice(-8)}`
    await dialog.getByLabel('Name of the template').fill(template)
    await dialog.getByRole('button', { name: 'Make the template' }).click()
    await page.getByText(`${template} is a template`).waitFor()

    await page.getByRole('button', { name: 'Fork base' }).click()
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      expect(await violations(tab)).toEqual([])
    }
    await dialog.getByLabel('Name', { exact: true }).fill('copy')
    await dialog.getByRole('button', { name: 'Fork', exact: true }).click()
    await page.getByRole('heading', { name: 'copy', level: 1 }).waitFor()
    await page.getByRole('link', { name: 'Files' }).click()
    await page.locator('[data-file="point"]').waitFor()
    await destroyShown()

    await visit(tab, platform, '/dashboard/templates')
    await page.getByRole('button', { name: `Launch from ${template}` }).click()
    await dialog.getByLabel('Name').fill('started')
    await dialog.getByRole('button', { name: 'Launch', exact: true }).click()
    await page.getByRole('heading', { name: 'started', level: 1 }).waitFor()
    await page.locator('[data-state=running]').first().waitFor()
    await page.getByRole('link', { name: 'Files' }).click()
    await page.locator('[data-file="point"]').waitFor()
    await destroyShown()
    await visit(tab, platform, `${path}/files?path=%2Froot`)
    await page.locator('[data-file="notes.txt"]').waitFor()
    expect(await page.locator('[data-file="point"]').count()).toBe(0)
    await visit(tab, platform, '/dashboard/templates')
    await page.getByRole('button', { name: `Delete ${template}` }).click()
    await dialog.getByRole('button', { name: 'Delete', exact: true }).click()
    await page.locator(`[data-template="${template}"]`).waitFor({ state: 'detached' })
    await visit(tab, platform, path)
    tab.problems.length = 0 // of the name that was refused
  })

  async function destroyShown(): Promise<void> {
    const { page } = tab
    await page.getByRole('button', { name: 'Destroy' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Destroy', exact: true }).click()
    await page.getByRole('heading', { name: 'Capsules', level: 1 }).waitFor()
  }

  it('sets what two points hold of a file side by side, by the keyboard alone', async () => {
    const { page } = tab
    const session = await logIn(platform, email)
    const api = new Api(platform, '')
    const capsule = `/v1/capsules/${path.split('/').at(-1)}`
    const put = async (name: string, body: string | Buffer<ArrayBuffer>) =>
      await api.json('PUT', `${capsule}/files`, { ...bearer(session), query: { path: `/root/diff/${name}` }, body })
    const save = async (name: string) =>
      await api.json('POST', `${capsule}/checkpoints`, { ...bearer(session), json: { name } })
    const lines = (word: string) => Array.from({ length: 4000 }, (_, index) => `${word} ${index + 1}\n`).join('')
    await put('a-text.txt', 'same\nold line\n')
    await put('b-bytes.bin', Buffer.from([0, 1, 2]))
    await put('c-large.txt', 'x'.repeat(2 ** 20 + 1))
    await put('d-long.txt', lines('old'))
    await save('one')
    await put('a-text.txt', 'same\nnew line\n')
    await put('b-bytes.bin', Buffer.from([0, 1, 3]))
    await put('c-large.txt', 'y'.repeat(2 ** 20 + 1))
    await put('d-long.txt', lines('new'))
    await save('two')

    await visit(tab, platform, `${path}/checkpoints`)
    const form = page.locator('form', { hasText: 'Compare' })
    await form.getByLabel('From').selectOption({ label: 'one' })
    await form.getByLabel('To').selectOption({ label: 'two' })
    await form.getByLabel('Below').fill('/root/diff')
    await page.keyboard.press('Enter')
    await page.getByText('4 differences').waitFor()
    await page.getByRole('button', { name: '/root/diff/a-text.txt' }).focus()
    await page.keyboard.press('Enter')
    const content = page.getByRole('region', { name: /^Content of / })
    const shown = content.getByRole('list')
    const seen = async () =>
      (await shown.getByRole('listitem').allInnerTexts()).map((text) => text.split(/\s+/).join(' '))
    await shown.getByText('new line').waitFor()
    expect(await seen()).toEqual(['@@ -1,2 +1,2 @@', '1 1 same', '2 − removed old line', '2 + added new line'])
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      expect(await violations(tab)).toEqual([])
    }
    // All of it is in the address.
    await page.reload()
    await shown.getByText('new line').waitFor()

    const next = content.getByRole('button', { name: 'The file after' })
    await next.focus()
    await page.keyboard.press('Enter')
    await content.getByText('This is no text').waitFor()
    await page.keyboard.press('Enter')
    await content.getByText('more than 1 MiB').waitFor()
    await page.keyboard.press('Enter')
    await content.getByText('Too much differs').waitFor()
    // The rows that can be seen, and none of the 8,000 others.
    expect(await shown.getByRole('listitem').count()).toBeLessThan(100)
    await content.getByRole('region', { name: /^Difference of / }).focus()
    await page.keyboard.press('End')
    await shown.getByText('new 4000').waitFor()
    await page.keyboard.press('Escape')
    await content.waitFor({ state: 'detached' })
    const row = page.getByRole('button', { name: '/root/diff/d-long.txt' })
    await expect.poll(() => row.evaluate((element) => element === document.activeElement), PATIENT).toBe(true)
    await page.goBack()
    await content.getByText('Too much differs').waitFor()
  })

  it('shows what it has used, as far back as its address says, by the keyboard and as a table too', async () => {
    const { page } = tab
    await page.getByRole('link', { name: 'Stats' }).click()
    const ranges = page.getByRole('navigation', { name: 'How far back' })
    await ranges.getByRole('link', { name: '5 min', exact: true }).focus()
    await page.keyboard.press('Enter')
    await expect.poll(() => new URL(page.url()).search, PATIENT).toBe('?range=5m')
    for (const name of ['CPU', 'Memory', 'Disk', 'Network']) {
      const chart = page.getByRole('figure', { name })
      await chart.locator('canvas').waitFor()
      await chart
        .getByText(/^peak /)
        .first()
        .waitFor()
    }
    await page.getByText('As a table').focus()
    await page.keyboard.press('Enter')
    const rows = page.getByRole('table').getByRole('row')
    await expect.poll(() => rows.count(), PATIENT).toBeGreaterThan(1)
    await page.reload()
    await ranges.locator('[aria-current=true]', { hasText: /^5 min$/ }).waitFor()
    await page.getByRole('figure', { name: 'CPU' }).locator('canvas').waitFor()
    await page.setViewportSize({ width: 390, height: 844 })
    const fits = async () => await page.evaluate('document.documentElement.scrollWidth <= innerWidth')
    await expect.poll(fits, PATIENT).toBe(true)
    await page.setViewportSize({ width: 1440, height: 900 })
  })

  it('shows in a second tab what is done in the first', async () => {
    const other = await openBeside(tab)
    await visit(other, platform, '/dashboard/capsules')
    const row = other.page.locator('[data-capsule]', { hasText: 'first' })
    await row.locator('[data-state=running]').waitFor()
    await visit(tab, platform, path)
    await tab.page.getByRole('button', { name: 'Pause' }).click()
    await row.locator('[data-state=paused]').waitFor()
    await tab.page.getByText('somebody asked for it').waitFor()
    await tab.page.getByRole('button', { name: 'Resume' }).click()
    await row.locator('[data-state=running]').waitFor()
    await other.page.close()
  })

  it.runIf(hasStore)(
    'hibernates from its page, the list and a choice of many, and shows what a resume does',
    async () => {
      const { page, problems } = tab
      const api = new Api(platform, '')
      const owner = bearer(await logIn(platform, email))
      const json = { name: 'cold', timeout_sec: 0 }
      const { id } = await api.json<{ id: string }>('POST', '/v1/capsules', { ...owner, json })
      const row = page.locator(`[data-capsule="${id}"]`)
      const shows = (state: string) => row.locator(`[data-state=${state}]`).waitFor(PATIENT)
      problems.length = 0
      try {
        await visit(tab, platform, `/dashboard/capsules/${id}`)
        await page.getByRole('button', { name: 'Hibernate' }).click()
        await page.getByText('its state is in the object store').waitFor(PATIENT)
        await page.getByText('cold is hibernated').waitFor()
        expect(await page.getByRole('button', { name: 'Hibernate' }).count()).toBe(0)
        await expectAccessible(tab)

        await visit(tab, platform, '/dashboard/capsules?state=hibernated')
        await shows('hibernated')
        expect(await page.locator('[data-capsule]').count()).toBe(1)
        await expectAccessible(tab)
        await row.getByRole('checkbox').check()
        const chosen = page.getByRole('group', { name: 'With the chosen ones' })
        expect(await chosen.getByRole('button', { name: 'hibernate' }).isDisabled()).toBe(true)
        await chosen.getByRole('button', { name: 'resume' }).click()
        await visit(tab, platform, '/dashboard/capsules?q=cold')
        await shows('running')
        await row.getByRole('button', { name: 'Actions of cold' }).click()
        await page.getByRole('menuitem', { name: 'Hibernate' }).click()
        await page.getByText('Storing cold').waitFor()
        await shows('hibernated')
        expect(problems).toEqual([])

        // Where the platform has no store, nothing of it is offered.
        await answer(page, '**/v1/me', async (route) => {
          const response = await route.fetch()
          await route.fulfill({ response, json: { ...(await response.json()), features: [] } })
        })
        await visit(tab, platform, path)
        await page.getByRole('button', { name: 'Pause' }).waitFor()
        expect(await page.getByRole('button', { name: 'Hibernate' }).count()).toBe(0)
      } finally {
        await page.unrouteAll({ behavior: 'wait' })
        await api.json('DELETE', `/v1/capsules/${id}`, owner)
      }
    },
  )

  it('tells who did what with it, and goes on as that happens', async () => {
    const { page } = tab
    const other = await openBeside(tab)
    await visit(tab, platform, path)
    await page.getByRole('navigation', { name: 'Of this capsule' }).getByRole('link', { name: 'Audit' }).click()
    const entries = (action: string) => page.locator(`[data-entry="${action}"]`)
    await entries('capsule.pause').first().waitFor()
    const pauses = await entries('capsule.pause').count()
    await visit(other, platform, path)
    await other.page.getByRole('button', { name: 'Pause' }).click()
    await other.page.getByRole('button', { name: 'Resume' }).click()
    await other.page.getByRole('button', { name: 'Pause' }).waitFor()
    // Each is asked for and ends.
    await expect.poll(() => entries('capsule.pause').count(), PATIENT).toBe(pauses + 2)
    await other.page.close()
    await page.getByLabel('Action', { exact: true }).fill('checkpoint.create')
    await page.keyboard.press('Enter')
    await entries('capsule.pause').first().waitFor({ state: 'detached' })
    await entries('checkpoint.create')
      .first()
      .getByText(/checkpoint id cp-/)
      .waitFor()
    await page.getByLabel('Outcome').selectOption('failure')
    await page.getByText('Nothing like that happened.').waitFor()
    expect(new URL(page.url()).search).toBe('?action=checkpoint.create&outcome=failure')
    await page.reload()
    await page.getByText('Nothing like that happened.').waitFor()
  })

  it('has pages that everybody can use, in both themes, without a complaint of the browser', async () => {
    const { page, problems } = tab
    problems.length = 0
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.emulateMedia({ colorScheme })
      for (const end of [
        '',
        '/stats?range=5m',
        '/files?path=%2Froot&file=notes.txt',
        '/terminal',
        '/checkpoints',
        '/processes',
        '/audit',
      ]) {
        await visit(tab, platform, path + end)
        await page.getByRole('heading', { name: 'first' }).waitFor()
        if (end === '/terminal') await untilScreen(tab, /#/)
        if (end === '/audit') await page.locator('[data-entry]').first().waitFor()
        if (end.startsWith('/stats')) await page.locator('figure canvas').first().waitFor()
        expect([end, await violations(tab)]).toEqual([end, []])
      }
    }
    expect(problems).toEqual([])
  })

  it('is gone when it is destroyed', async () => {
    const { page } = tab
    await visit(tab, platform, path)
    await page.getByRole('button', { name: 'Destroy' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Destroy', exact: true }).click()
    await page.getByText('No capsules yet').waitFor()
    expect(new URL(page.url()).pathname).toBe('/dashboard/capsules')
  })
})

const onePixel = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
