// node --conditions=wrenn-source --import tsx bench/dashboard.ts [--rows 1000] [--port 8206]
// What the dashboard costs a browser: when the list of a thousand capsules stands beside bare pages on the same machine, a terminal with much
// output, how long a key takes to be seen beyond the time of its socket, a change to be seen in other tabs, and 10,000 rows while they are scrolled.
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Client } from 'pg'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import type { Platform } from './platform.js'
import { type Row, row, table } from './report.js'
import { log, withPlatform } from './soak.js'

const LOADS = 9
const UNSEEN_MS = 1_500
const KEYS = 60
const LINES = 200_000
const CHANGES = 20
const PASSWORD = 'correct horse battery'
const CHROMIUM = '/usr/bin/chromium'
const PATIENCE_MS = 300_000

const { values } = parseArgs({
  options: { rows: { type: 'string', default: '1000' }, port: { type: 'string', default: '8206' } },
})
const url = `http://127.0.0.1:${values.port}`

interface Login {
  readonly token: string
  readonly team_id: string
}

async function post<T>(path: string, body: object, headers: Readonly<Record<string, string>> = {}): Promise<T> {
  const init = {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify(body),
  }
  const answer = await fetch(url + path, init)
  if (!answer.ok) throw new Error(`POST ${path}: ${answer.status} ${await answer.text()}`)
  return JSON.parse(await answer.text())
}

async function addPerson(platform: Platform): Promise<{ readonly email: string; readonly login: Login }> {
  const email = `somebody-${randomBytes(4).toString('hex')}@example.com`
  const made = await platform.call<{ activation_token: string }>('POST', '/v1/admin/users', { email, name: 'Somebody' })
  await post('/v1/auth/activate', { token: made.activation_token, password: PASSWORD })
  return { email, login: await post<Login>('/v1/auth/login', { email, password: PASSWORD }) }
}

/** Copies a capsule that has ended: the host is asked for none of the copies, and the list shows them all. */
async function multiply(db: Client, id: string, teamId: string, first: number, last: number): Promise<void> {
  const { rows: columns } = await db.query<{ name: string }>(
    `SELECT column_name AS name FROM information_schema.columns
     WHERE table_name = 'capsules' AND is_generated = 'NEVER' AND is_identity = 'NO' AND column_name <> 'seq'
     ORDER BY ordinal_position`,
  )
  const fresh: Readonly<Record<string, string>> = {
    id: "'cl-' || substr(md5(random()::text) || md5(random()::text), 1, 25)",
    name: "'capsule-' || n",
    team_id: `'${teamId}'`,
    state: "'error'",
    observed_state: "'absent'",
    created_at: "now() - n * interval '1 minute'",
  }
  const names = columns.map(({ name }) => name)
  await db.query("SET session_replication_role = 'replica'")
  await db.query(
    `INSERT INTO capsules (${names.join(', ')}) SELECT ${names.map((name) => fresh[name] ?? `t.${name}`).join(', ')}
     FROM capsules AS t, generate_series($1::int, $2::int) AS n WHERE t.id = $3`,
    [first, last, id],
  )
  await db.query("SET session_replication_role = 'origin'")
}

/** Leaps, the wheel at two speeds, and the ends of the list: each is done so often. */
const SCROLLS = 60
const MANY_ROWS = 10_000

/** The longest task of the page while a long list is scrolled, for each way to scroll; 0 where none was long to a browser (50 ms). */
async function scrollRow(browser: Browser, state: State): Promise<Row> {
  const context = await browser.newContext({ storageState: state, viewport: { width: 1440, height: 900 } })
  context.setDefaultTimeout(PATIENCE_MS)
  const page = await context.newPage()
  await page.goto(`${url}/dashboard/capsules`)
  const list = page.locator('main table')
  await page.locator(`main table[aria-rowcount="${MANY_ROWS + 1}"]`).waitFor()
  const box = await list.boundingBox()
  if (box === null) throw new Error('The list is there.')
  await page.mouse.move(box.x + box.width / 2, 600)
  await page.evaluate(`
    globalThis.longest = 0
    new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) longest = Math.max(longest, duration) })
      .observe({ type: 'longtask' })`)
  const scrollTo = (px: number) => page.evaluate(`scrollTo(0, ${px})`)
  const ways: readonly ((at: number) => Promise<unknown>)[] = [
    () => page.mouse.wheel(0, 120),
    () => page.mouse.wheel(0, 5_000),
    (at) => scrollTo(((at * 7_919) % MANY_ROWS) * 49),
    (at) => page.keyboard.press(at % 2 === 0 ? 'End' : 'Home'),
  ]
  const samples: number[] = []
  for (const way of ways) {
    await scrollTo(0)
    await delay(UNSEEN_MS)
    await page.evaluate('longest = 0')
    for (let at = 0; at < SCROLLS; at++) {
      await way(at)
      await delay(16)
    }
    await delay(UNSEEN_MS)
    samples.push(Number(await page.evaluate('longest')))
  }
  await context.close()
  return row({
    id: 'dashboard.scroll',
    what: `the longest task while ${MANY_ROWS} rows are scrolled, in each of ${ways.length} ways (0: none of 50 ms)`,
    unit: 'ms',
    samples,
    budget: 'none over 50 ms',
    keeps: () => Math.max(...samples) <= 50,
  })
}

type State = Awaited<ReturnType<BrowserContext['storageState']>>

async function signIn(browser: Browser, email: string): Promise<State> {
  const context = await browser.newContext()
  context.setDefaultTimeout(PATIENCE_MS)
  const page = await context.newPage()
  await page.goto(`${url}/login`)
  await page.getByLabel('Mail address').fill(email)
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign in', exact: true }).click()
  await page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()
  const state = await context.storageState()
  await context.close()
  return state
}

interface Load {
  readonly address: string
  /** What is there once the page has all that it is for. */
  readonly shown: string
  readonly state?: State
}

/** When the largest piece of a page was painted, ms after its navigation began, in a browser that has nothing of it yet. */
async function paintOf(browser: Browser, { address, shown, state }: Load): Promise<number> {
  const viewport = { width: 1440, height: 900 }
  const context = await browser.newContext({ viewport, ...(state === undefined ? {} : { storageState: state }) })
  context.setDefaultTimeout(PATIENCE_MS)
  const page = await context.newPage()
  // Whoever waits for something in a page runs scripts there, and did so just before the list was painted: nobody looks in until it has been.
  await page.goto(address, { waitUntil: 'commit' })
  await delay(UNSEEN_MS)
  await page.locator(shown).first().waitFor()
  const ms: number = await page.evaluate(`new Promise((resolve) => {
    let last = 0
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) last = entry.startTime })
      .observe({ type: 'largest-contentful-paint', buffered: true })
    setTimeout(() => resolve(last), 1000)
  })`)
  await context.close()
  return ms
}

/** A page of one sentence, and one with as many rows of plain HTML as the list has. */
async function barePages(rows: number) {
  const head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>bare</title><link rel="icon" href="data:,">'
  const line = (n: number): string => `<tr><td>capsule-${n}<td>error<td>minimal<td>1 × 512 MiB<td>${n} min ago`
  const lines = Array.from({ length: rows }, (_, index) => line(index + 1)).join('')
  const pages: Readonly<Record<string, string>> = {
    '/sentence': `${head}<h1>Capsules</h1><p id="end">A page of one sentence, which is all that there is on it.`,
    '/table': `${head}<h1>Capsules</h1><table>${lines}</table><p id="end">`,
  }
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'text/html; charset=utf-8').end(pages[request.url ?? ''] ?? head)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  // It was just told to listen on a port.
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}`, close: () => server.close() }
}

async function listRows(browser: Browser, state: State, rows: number): Promise<Row[]> {
  const bare = await barePages(rows)
  const list: Load = { address: `${url}/dashboard/capsules`, shown: '[data-capsule]', state }
  const [lists, sentences, tables]: [number[], number[], number[]] = [[], [], []]
  await paintOf(browser, list)
  for (let load = 0; load < LOADS; load++) {
    sentences.push(await paintOf(browser, { address: `${bare.url}/sentence`, shown: '#end' }))
    tables.push(await paintOf(browser, { address: `${bare.url}/table`, shown: 'h1' }))
    lists.push(await paintOf(browser, list))
  }
  bare.close()
  const what = `largest paint of the list with ${rows} capsules, nothing cached`
  const budget = '≤ 1.5 × bare'
  const keeps = (ms: number, floor: number): boolean => ms <= 1.5 * floor
  return [
    row({
      id: 'dashboard.lcp.table',
      what: `${what}; bare: the rows as HTML`,
      unit: 'ms',
      samples: lists,
      floor: tables,
      budget,
      keeps,
    }),
    row({
      id: 'dashboard.lcp.sentence',
      what: `${what}; bare: a sentence`,
      unit: 'ms',
      samples: lists,
      floor: sentences,
      budget,
      keeps,
    }),
  ]
}

/**
 * Notes of the key that went down last when something then goes out by a socket, when something comes in after that, and when the terminal shows
 * something else after that. The order is told by what is noted, never by the times: a browser's clock has steps of 0.1 ms, and a key is sent in less.
 */
const watch = `
  globalThis.seen = { keys: 0 }
  const note = (what, after) => { if (seen[after] !== undefined) seen[what] ??= performance.now() }
  const Plain = WebSocket
  globalThis.WebSocket = class extends Plain {
    constructor(...args) {
      super(...args)
      this.addEventListener('message', () => note('heard', 'sent'))
    }
    send(data) { note('sent', 'pressed'); super.send(data) }
  }
  addEventListener('keydown', () => { seen = { keys: seen.keys + 1, pressed: performance.now() } }, true)
  globalThis.watchRows = () => new MutationObserver(() => note('shown', 'heard'))
    .observe(document.querySelector('[data-terminal] .xterm-rows'), { childList: true, subtree: true, characterData: true })
`

const screen = (page: Page) => page.locator('[data-terminal]:visible .xterm-rows')
const until = async (page: Page, text: string): Promise<void> => {
  await screen(page).filter({ hasText: text }).waitFor()
}

type Seen = Readonly<Record<'keys' | 'pressed' | 'sent' | 'heard' | 'shown', number>>

/** Of that key, counted from 1, once it has been seen. The page's policy lets nobody wait in it for an expression. */
async function roundTrip(page: Page, key: number): Promise<Seen> {
  const end = performance.now() + PATIENCE_MS
  for (;;) {
    const seen: Partial<Seen> = await page.evaluate('({ ...seen })')
    if (isWhole(seen) && seen.keys === key) return seen
    if (performance.now() > end) throw new Error(`Key ${key} was never seen, only: ${JSON.stringify(seen)}`)
    await delay(5)
  }
}

const isWhole = (seen: Partial<Seen>): seen is Seen => seen.shown !== undefined

async function terminalRows(browser: Browser, state: State, id: string): Promise<Row[]> {
  const context = await browser.newContext({ storageState: state, viewport: { width: 1440, height: 900 } })
  context.setDefaultTimeout(PATIENCE_MS)
  const page = await context.newPage()
  await page.addInitScript(watch)
  await page.goto(`${url}/dashboard/capsules/${id}/terminal`)
  await until(page, '#')
  await page.locator('[data-terminal]:visible .xterm-helper-textarea').focus()
  await page.evaluate('watchRows()')

  const [beyond, sockets]: [number[], number[]] = [[], []]
  for (let key = 1; key <= KEYS; key++) {
    await page.keyboard.press('x')
    const seen = await roundTrip(page, key)
    const socket = seen.heard - seen.sent
    sockets.push(socket)
    beyond.push(seen.shown - seen.pressed - socket)
  }
  await page.keyboard.press('Control+u')

  await page.keyboard.type(`clear; seq 1 ${LINES}; echo "all of $((${LINES}+1))"\n`)
  const startedAt = performance.now()
  await until(page, `all of ${LINES + 1}`)
  const printed = performance.now() - startedAt
  const tail = (await screen(page).innerText())
    .replaceAll('\u00a0', ' ')
    .split('\n')
    .map((line) => line.trim())
  if (!tail.includes(String(LINES)) || !tail.includes(String(LINES - 1)))
    throw new Error('The last lines are not there.')

  await page.keyboard.type('clear; seq 1 100000000\n')
  await until(page, '0000')
  const stoppedAt = performance.now()
  await page.keyboard.press('Control+c')
  await until(page, '^C')
  const stopped = performance.now() - stoppedAt
  await page.keyboard.type('echo "answers $((6*7))"\n')
  await until(page, 'answers 42')
  await context.close()
  return [
    row({
      id: 'dashboard.echo',
      what: "a key until it is seen, beyond its socket's own time",
      unit: 'ms',
      samples: beyond,
      budget: '≤ 20 ms',
      keeps: (ms) => ms <= 20,
      note: `the socket's own: ${row({ id: '', what: '', unit: 'ms', samples: sockets }).p50} ms`,
    }),
    row({ id: 'dashboard.seq', what: `seq 1 ${LINES} until its last line is seen`, unit: 'ms', samples: [printed] }),
    row({ id: 'dashboard.interrupt', what: '^C amid endless output until it is seen', unit: 'ms', samples: [stopped] }),
  ]
}

/** How long another tab of the same account takes to show what has changed, from the answer to who changed it on. */
async function besideRow(browser: Browser, state: State, id: string, headers: Readonly<Record<string, string>>) {
  const context = await browser.newContext({ storageState: state, viewport: { width: 1440, height: 900 } })
  context.setDefaultTimeout(PATIENCE_MS)
  const tabs = [await context.newPage(), await context.newPage()]
  for (const page of tabs) {
    await page.goto(`${url}/dashboard/capsules?q=${id}`)
    await page.locator('[data-live=live]').waitFor()
    await page.locator(`[data-capsule="${id}"]`).waitFor()
  }
  const samples: number[] = []
  for (let change = 0; change < CHANGES; change++) {
    const name = `changed-${change}`
    const init = { method: 'PATCH', headers: { 'content-type': 'application/json', ...headers } }
    const answer = await fetch(`${url}/v1/capsules/${id}`, { ...init, body: JSON.stringify({ name }) })
    if (!answer.ok) throw new Error(`PATCH: ${answer.status} ${await answer.text()}`)
    const changedAt = performance.now()
    for (const page of tabs) await page.locator(`[data-capsule="${id}"]`, { hasText: name }).waitFor()
    samples.push(performance.now() - changedAt)
  }
  await context.close()
  return row({
    id: 'dashboard.beside',
    what: 'a change until two tabs show it',
    unit: 'ms',
    samples,
    budget: '≤ 1000 ms',
    keeps: (ms) => ms <= 1000,
  })
}

await withPlatform(Number(values.port), async (platform) => {
  const rows = Number(values.rows)
  const { email, login } = await addPerson(platform)
  const ended = await platform.create({})
  await platform.destroy(ended.id)
  const db = new Client(`postgresql://postgres@${encodeURIComponent(join(platform.dir, 'postgres/socket'))}:5432/wrenn`)
  await db.connect()
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] })
  const found: Row[] = []
  try {
    await multiply(db, ended.id, login.team_id, 1, rows)
    const state = await signIn(browser, email)
    found.push(...(await listRows(browser, state, rows)))
    log(table(found))
    const headers = { authorization: `Bearer ${login.token}` }
    const { id } = await post<{ id: string }>('/v1/capsules?wait_sec=200', { name: 'box' }, headers)
    found.push(await besideRow(browser, state, id, headers))
    found.push(...(await terminalRows(browser, state, id)))
    // With the one that was just made.
    await multiply(db, ended.id, login.team_id, rows + 1, MANY_ROWS - 1)
    found.push(await scrollRow(browser, state))
  } finally {
    await db.end()
    await browser.close()
  }
  process.stdout.write(`${table(found)}\n`)
})
