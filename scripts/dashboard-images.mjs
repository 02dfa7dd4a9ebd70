// node scripts/dashboard-images.mjs [--url http://127.0.0.1:8000] [--key-file /var/lib/wrenn/api-key] [--out docs/images]
// Takes the pictures of the documentation from a running platform, with capsules, a person and a receiver of events that it makes for them
// and removes again. The platform must allow channels to it: WRENN_CHANNEL_ALLOW=127.0.0.1.
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'
import { fail, root } from './prepare.mjs'

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: 'http://127.0.0.1:8000' },
    'key-file': { type: 'string', default: '/var/lib/wrenn/api-key' },
    out: { type: 'string', default: join(root, 'docs/images') },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
})
const { url } = values
const PERSON = { name: 'Ada', email: `ada.${randomBytes(4).toString('hex')}@example.com` }
const PASSWORD = randomBytes(12).toString('hex')
const MAX_BYTES = 150_000
const QUALITY = 0.86
const TEMPLATE = 'report'
/** On an emulated machine. */
const BUILD_MS = 600_000

/** @param {string} method @param {string} path @param {Readonly<Record<string, string>>} headers @param {unknown} [body] */
async function call(method, path, headers, body) {
  const isRaw = typeof body === 'string'
  const type = isRaw ? 'application/octet-stream' : 'application/json'
  const response = await fetch(url + path, {
    method,
    headers: { ...headers, ...(body === undefined ? {} : { 'content-type': type }) },
    ...(body === undefined ? {} : { body: isRaw ? body : JSON.stringify(body) }),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
  return text === '' ? undefined : JSON.parse(text)
}

async function addPerson() {
  const key = { 'x-api-key': (await readFile(values['key-file'], 'utf8')).trim() }
  const { activation_token: token } = await call('POST', '/v1/admin/users', key, PERSON)
  await call('POST', '/v1/auth/activate', {}, { token, password: PASSWORD })
  const session = await logIn()
  await call('PATCH', `/v1/teams/${session.team}`, session.person, { name: 'Analytical Engines' })
  return session
}

async function logIn() {
  const { token, team_id: team } = await call('POST', '/v1/auth/login', {}, { email: PERSON.email, password: PASSWORD })
  return { person: { authorization: `Bearer ${token}` }, team }
}

const before = `import json
import sys


def total(rows):
    """The sum of all amounts, in cents."""
    return sum(row["amount"] for row in rows)


with open(sys.argv[1]) as file:
    rows = json.load(file)

print(total(rows))
`
const after = before
  .replace(
    'return sum(row["amount"] for row in rows)',
    'return sum(row["amount"] for row in rows if not row.get("void"))',
  )
  .replace('print(total(rows))', 'print(f"{total(rows) / 100:.2f}")')

const tests = `import unittest
from total import total


class Total(unittest.TestCase):
    def test_adds_amounts(self):
        self.assertEqual(total([{"amount": 1250}, {"amount": 4999}]), 6249)

    def test_leaves_out_void_rows(self):
        self.assertEqual(total([{"amount": 300, "void": True}]), 0)
`
const moreTests = `${tests}
    def test_of_nothing_is_nothing(self):
        self.assertEqual(total([]), 0)
`
/** @param {string} cases */
const dockerfile = (cases) => `FROM base
WORKDIR /srv/report
COPY <<total.py ./
def total(rows):
    return sum(row["amount"] for row in rows if not row.get("void"))
total.py
RUN python3 -m compileall -f /usr/lib/python3*/json .
COPY <<test_total.py ./
${cases}test_total.py
RUN python3 -m unittest -v 2>&1
`

/** Takes what a channel sends. @returns its address, and what ends it */
async function receive() {
  const server = createServer((request, response) => {
    request.resume().on('end', () => response.writeHead(200, { 'content-type': 'text/plain' }).end('thank you\n'))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  return { url: `http://127.0.0.1:${port}/wrenn-events`, close: () => server.close().closeAllConnections() }
}

/** @param {Readonly<Record<string, string>>} person @param {string} hook where its events are sent to */
async function furnish(person, hook) {
  const { id: channel } = await call('POST', '/v1/channels', person, {
    name: 'report-bot',
    provider: 'webhook',
    config: { url: hook },
    events: ['capsule.created', 'build.*'],
  })
  /** @param {string} name @param {object} [more] */
  const create = async (name, more = {}) =>
    await call('POST', '/v1/capsules?wait_sec=200', person, { name, timeout_sec: 1800, auto_resume: true, ...more })
  const main = await create('report-agent')
  const ids = [main.id]
  for (const name of ['web-preview', 'nightly-tests', 'scratch']) ids.push((await create(name)).id)
  await call('POST', `/v1/capsules/${ids[2]}/pause`, person)
  /** @param {string} path @param {string} text */
  const put = async (path, text) =>
    await call('PUT', `/v1/capsules/${main.id}/files?${new URLSearchParams({ path })}`, person, text)
  /** @param {string} name */
  const checkpoint = async (name) => await call('POST', `/v1/capsules/${main.id}/checkpoints`, person, { name })
  await put('/root/report/total.py', before)
  await put('/root/report/rows.json', '[{"amount": 1250}, {"amount": 300, "void": true}, {"amount": 4999}]\n')
  await checkpoint('clean')
  await put('/root/report/notes.md', '# Notes\n\nVoid rows must not count.\n')
  await checkpoint('first-try')
  await call('POST', `/v1/capsules/${main.id}/checkpoints/clean/rollback`, person)
  await put('/root/report/total.py', after)
  await put('/root/report/README.md', 'python3 total.py rows.json\n')
  await checkpoint('second-try')
  return { ids, main: main.id, channel }
}

/** As small as the documentation wants them: Chromium knows how. @param {import('playwright-core').Page} tool @param {Buffer} png */
async function webp(tool, png) {
  const source = `data:image/png;base64,${png.toString('base64')}`
  const encoded = await tool.evaluate(
    `(async () => {
      const image = new Image()
      image.src = ${JSON.stringify(source)}
      await image.decode()
      const canvas = document.createElement('canvas')
      canvas.width = image.width
      canvas.height = image.height
      canvas.getContext('2d').drawImage(image, 0, 0)
      return canvas.toDataURL('image/webp', ${QUALITY})
    })()`,
  )
  return Buffer.from(String(encoded).split(',')[1] ?? '', 'base64')
}

/** By the page, as somebody would who changes a test. @param {import('playwright-core').Page} page @returns where it is shown */
async function buildTwice(page) {
  for (const cases of [tests, moreTests]) {
    await page.goto(`${url}/dashboard/templates/builds/new`)
    await page.getByLabel('Name').fill(TEMPLATE)
    await page.getByRole('textbox', { name: 'Dockerfile' }).fill(dockerfile(cases))
    await page.getByRole('button', { name: 'Build', exact: true }).click()
    await page.waitForURL(/\/builds\/bld-/)
    await page.locator('header [data-build-state=ready]').waitFor({ timeout: BUILD_MS })
  }
  return page.url()
}

/** @param {import('playwright-core').Browser} browser @param {{ main: string, channel: string }} furnished */
async function take(browser, { main: capsule, channel }) {
  let build = ''
  const tool = await browser.newPage()
  for (const colorScheme of /** @type {const} */ (['dark', 'light'])) {
    const context = await browser.newContext({
      colorScheme,
      reducedMotion: 'reduce',
      viewport: { width: 1440, height: 900 },
    })
    const page = await context.newPage()
    const suffix = colorScheme === 'light' ? '-light' : ''
    /** @param {string} name */
    const shoot = async (name) => {
      await page.evaluate('document.fonts.ready.then(() => document.activeElement?.blur())')
      const file = join(values.out, `dashboard-${name}${suffix}.webp`)
      const bytes = await webp(tool, await page.screenshot())
      if (bytes.length > MAX_BYTES) throw new Error(`${file} has ${bytes.length} bytes, more than ${MAX_BYTES}`)
      await writeFile(file, bytes)
      process.stdout.write(`${file} ${bytes.length}\n`)
    }
    await page.goto(`${url}/login`)
    await page.getByLabel('Mail address').fill(PERSON.email)
    await page.getByLabel('Password').fill(PASSWORD)
    await page.getByRole('button', { name: 'Sign in', exact: true }).click()
    await page.locator('[data-capsule]').nth(3).waitFor()
    await shoot('capsules')
    await page.goto(`${url}/dashboard/capsules/${capsule}`)
    await page.getByText('Memory', { exact: true }).first().waitFor()
    await page.locator('[data-live=live]').waitFor()
    await page.getByRole('meter', { name: 'CPU' }).waitFor()
    await page.getByText('public addresses').waitFor()
    await shoot('capsule')
    await page.goto(`${url}/dashboard/capsules/${capsule}/checkpoints`)
    await page.getByRole('combobox', { name: /^From/ }).selectOption({ label: 'first-try' })
    await page.getByRole('combobox', { name: /^To/ }).selectOption({ label: 'second-try' })
    await page.getByLabel('Below').fill('/root/report')
    await page.getByRole('button', { name: 'Compare' }).click()
    await page.locator('[data-change="/root/report/total.py"]').click()
    await page.locator('.diff-added').first().waitFor()
    await page.locator('.diff').evaluate('(element) => element.scrollIntoView({ block: "end" })')
    await shoot('checkpoints')
    build ||= await buildTwice(page)
    await page.goto(build)
    await page.locator('[data-log]').getByText('OK', { exact: true }).waitFor()
    await shoot('build')
    await page.goto(`${url}/dashboard/channels/${channel}`)
    const last = page.locator('[data-delivery]').filter({ hasText: 'delivered' }).first()
    await last.getByRole('button', { name: /^Request and answer/ }).click()
    await page.getByLabel('Answer', { exact: true }).getByText('thank you').waitFor()
    await shoot('channel')
    if (colorScheme === 'dark') {
      await page.goto(`${url}/dashboard/capsules/${capsule}/terminal`)
      await page.locator('[data-terminal]:visible .xterm-rows', { hasText: '#' }).waitFor()
      await page.locator('[data-terminal]:visible .xterm-helper-textarea').focus()
      for (const [line, answer] of [
        ['cd report && ls -la', 'total.py'],
        ['python3 total.py rows.json', '62.49'],
        ['uname -a', 'GNU/Linux'],
      ]) {
        await page.keyboard.type(`${line}\n`)
        await page.locator('[data-terminal]:visible .xterm-rows', { hasText: answer }).waitFor()
      }
      await shoot('terminal')
      await page.setViewportSize({ width: 390, height: 780 })
      await page.goto(`${url}/dashboard/capsules`)
      await page.locator('[data-capsule]').nth(3).waitFor()
      await shoot('small')
    }
    await context.close()
  }
}

await mkdir(values.out, { recursive: true })
const { person, team } = await addPerson().catch((error) => fail(String(error)))
const receiver = await receive()
const furnished = await furnish(person, receiver.url)
const browser = await chromium.launch({ executablePath: values.chromium, args: ['--no-sandbox', '--disable-gpu'] })
try {
  await take(browser, furnished)
} finally {
  await browser.close()
  receiver.close()
  for (const id of furnished.ids) await call('DELETE', `/v1/capsules/${id}`, person)
  // With its template, its channel, and what builds keep; sessions in it end.
  await call('DELETE', `/v1/teams/${team}`, person)
  await call('DELETE', '/v1/me', (await logIn()).person, { confirmation: PERSON.email })
}
