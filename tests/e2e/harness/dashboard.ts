import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { AxeResults } from 'axe-core'
import type { Browser, BrowserContext, Page, Route } from 'playwright-core'
import { afterAll, beforeAll, expect, inject } from 'vitest'
import { Api } from './api.js'
import { launchBrowser, noBrowser } from './browser.js'
import { addPerson, bearer, logIn, PASSWORD, tokenInMail } from './people.js'
import type { Platform } from './platform.js'
import { eventually } from './wait.js'

/** Two suites beside, on an emulated machine: what a person would have given up on long ago. */
export const PATIENT = { timeout: 120_000 }

/** The narrowest screen that pages are for. */
export const PHONE = { width: 360, height: 740 } as const
const LAID_OUT_MS = 10_000

/** A tab, and what the browser complained of in it. */
export interface Tab {
  readonly page: Page
  /** Errors of the console and of scripts; failures of the network that a test causes are its own to leave out. */
  readonly problems: string[]
}

/** One browser for a file of tests. */
export function useBrowser(): { open(options?: Parameters<Browser['newContext']>[0]): Promise<Tab> } {
  let browser: Browser | undefined
  const contexts: BrowserContext[] = []
  beforeAll(async () => {
    if (noBrowser !== '') return
    const { port, tls, provider } = inject('platform')
    browser = await launchBrowser([port, tls?.port, provider?.port].filter((each) => each !== undefined))
  })
  afterAll(async () => {
    for (const context of contexts) {
      closing.add(context)
      await context.close()
    }
    await browser?.close()
  })
  return {
    open: async (options = {}) => {
      if (browser === undefined) throw new Error('The browser is there once the tests run.')
      const context = await browser.newContext({
        reducedMotion: 'reduce',
        viewport: { width: 1440, height: 900 },
        ...options,
      })
      context.setDefaultTimeout(PATIENT.timeout)
      contexts.push(context)
      return watched(await context.newPage())
    },
  }
}

const closing = new WeakSet<BrowserContext>()

/**
 * Answers what pages ask, in the platform's place, until `unroute`. Pages ask by themselves too: what is on its way when the browser closes fails, and is
 * nobody's any more.
 */
export async function answer(page: Page, url: string | RegExp, how: (route: Route) => Promise<void>): Promise<void> {
  await page.route(url, async (route) => {
    try {
      await how(route)
    } catch (error) {
      if (!closing.has(page.context())) throw error
    }
  })
}

/** Another tab of the same session. */
export async function openBeside({ page }: Tab): Promise<Tab> {
  return watched(await page.context().newPage())
}

function watched(page: Page): Tab {
  const problems: string[] = []
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(`${message.text()} (${message.location().url})`)
  })
  page.on('pageerror', (error) => problems.push(String(error)))
  return { page, problems }
}

/** Goes to a page. */
export async function visit({ page }: Tab, platform: Pick<Platform, 'url'>, path: string): Promise<void> {
  await page.goto(platform.url + path)
}

/** Signs somebody in by the form, and waits for the list of capsules. */
export async function signIn(tab: Tab, platform: Pick<Platform, 'url'>, email: string): Promise<void> {
  await visit(tab, platform, '/login')
  const { page } = tab
  await page.getByLabel('Mail address').fill(email)
  await page.getByLabel('Password').fill(PASSWORD)
  await page.getByRole('button', { name: 'Sign in', exact: true }).click()
  await page.getByRole('heading', { name: 'Capsules', exact: true }).waitFor()
}

/**
 * Colours that are on their way to others are measured as what they are at that moment. What inherits one sets out anew with each of its steps, so
 * that there are more to wait for when the first have come.
 */
const settle = `(async () => {
  const moving = () => document.getAnimations().filter((each) => each.playState === 'running' && each.effect?.getComputedTiming().endTime !== Infinity)
  do {
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
    await Promise.allSettled(moving().map((each) => each.finished))
  } while (moving().length > 0)
})()`
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

/** What axe finds that keeps somebody from using the page. */
export async function violations({ page }: Tab): Promise<string[]> {
  await page.evaluate(settle)
  await page.evaluate(axe)
  const found: AxeResults = await page.evaluate('axe.run({ resultTypes: ["violations"] })')
  return found.violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`)
}

interface Viewer {
  readonly name: string
  /** Whom it may look at, by its id and by its name. */
  readonly team: string
  readonly called: string
  /** Credentials of who invites. */
  readonly owner: ReturnType<typeof bearer>
}

/** The dashboard as somebody has it who may only look at a team. */
export async function openViewer(
  browser: ReturnType<typeof useBrowser>,
  platform: Platform,
  { name, team, called, owner }: Viewer,
): Promise<Tab> {
  const anonymous = new Api(platform, '')
  const { email } = await addPerson(platform, name)
  const session = await logIn(platform, email)
  await anonymous.json('POST', `/v1/teams/${team}/invitations`, { ...owner, json: { email, role: 'viewer' } })
  const token = await tokenInMail(platform, email, '/invitation')
  await anonymous.json('POST', '/v1/invitations/accept', { ...bearer(session), json: { token } })
  const tab = await browser.open()
  await signIn(tab, platform, email)
  await tab.page.getByRole('button', { name: /^Team: / }).click()
  await tab.page.getByRole('menuitem', { name: called }).click()
  await tab.page.getByRole('button', { name: `Team: ${called}` }).waitFor()
  return tab
}

/** The page as it is now, in both themes, and as narrow as a phone. */
export async function expectAccessible(tab: Tab): Promise<void> {
  const { page } = tab
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    expect(await violations(tab)).toEqual([])
  }
  await page.setViewportSize(PHONE)
  await expectNothingBeside(tab)
  await page.setViewportSize({ width: 1440, height: 900 })
}

/** On a phone's screen the page has nothing beside it, once it is laid out for that. */
export async function expectNothingBeside({ page }: Tab): Promise<void> {
  const width = (): Promise<unknown> => page.evaluate('document.documentElement.scrollWidth')
  await expect.poll(width, { timeout: LAID_OUT_MS, message: page.url() }).toBe(PHONE.width)
}

/** Everything the shown terminal has on its screen. */
export async function screenText({ page }: Tab): Promise<string> {
  return await page.locator('[data-terminal]:visible .xterm-rows').innerText()
}

/** Types a line into the shown terminal, and waits for what it must print. */
export async function typeLine(tab: Tab, line: string, expected: RegExp): Promise<void> {
  await tab.page.locator('[data-terminal]:visible .xterm-helper-textarea').focus()
  await tab.page.keyboard.type(`${line}\n`)
  await untilScreen(tab, expected)
}

export async function untilScreen(tab: Tab, expected: RegExp): Promise<void> {
  let seen = ''
  await eventually(
    () => `the terminal to show ${expected}; it shows:\n${seen}`,
    async () => {
      // A row is as wide as the screen; a no-break space is how it shows an empty cell.
      seen = (await screenText(tab)).replaceAll('\u00a0', ' ')
      return expected.test(seen) ? true : undefined
    },
    PATIENT.timeout,
  )
}
