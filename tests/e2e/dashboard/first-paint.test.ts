import { beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { noBrowser } from '../harness/browser.js'
import { PHONE, signIn, type Tab, useBrowser } from '../harness/dashboard.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'

const { platform } = usePlatform()
const browser = useBrowser()
let email = ''

beforeAll(async () => {
  if (noBrowser !== '') return
  await firstAdmin(platform)
  email = (await addPerson(platform, 'Painter')).email
})

interface Shown {
  /** Every element of the frame and the list with its attributes, in any order, and its own text. */
  readonly elements: readonly string[]
  /** Where links, buttons and rows are: left, top, width and height in pixels. */
  readonly places: readonly string[]
}

/** How the stream of events is goes on by itself, and is left out. */
async function shownIn({ page }: Tab): Promise<Shown> {
  return await page.locator('nav, main').evaluateAll((parts) => {
    const all = parts.flatMap((part) => [...part.querySelectorAll<HTMLElement>('*')])
    const still = all.filter((each) => each.closest('[data-live]') === null)
    const elements = still.map((each) => {
      const attributes = [...each.attributes].filter(({ name }) => name !== 'data-style' && name !== 'value')
      const own = [...each.childNodes].filter((node) => node instanceof Text).map(({ data }) => data.trim())
      const state = each instanceof HTMLInputElement ? [each.value, String(each.checked)] : []
      return [
        each.tagName,
        ...attributes.map(({ name, value }) => `${name}=${value}`).sort(),
        ...state,
        own.join(''),
      ].join(' ')
    })
    const places = still
      .filter((each) => each.matches('a, button, input, h1, tr, td'))
      .map((each) => {
        const { x, y, width, height } = each.getBoundingClientRect()
        return `${each.tagName} ${each.textContent?.trim()}: ${[x, y, width, height].map(Math.round).join(' ')}`
      })
    return { elements, places }
  })
}

describe.skipIf(noBrowser !== '')(`the first paint of the list ${noBrowser}`, () => {
  it('shows what the application then shows, where it shows it', async () => {
    const api = new Api(platform, '')
    const owner = bearer(await logIn(platform, email))
    const names = ['seen <first> style="x"', undefined]
    const ids: string[] = []
    for (const name of names) {
      const json = name === undefined ? {} : { name }
      const query = { wait_sec: '120' }
      ids.push((await api.json<{ id: string }>('POST', '/v1/capsules', { ...owner, json, query })).id)
    }
    await api.json('POST', `/v1/capsules/${ids[1]}/pause`, { ...owner, json: {} })
    for (const viewport of [{ width: 1440, height: 900 }, PHONE]) {
      const tab = await browser.open({ viewport })
      const { page } = tab
      await signIn(tab, platform, email)
      let come = (): void => {}
      const held = new Promise<void>((resolve) => {
        come = resolve
      })
      await page.route(/\/_app\/immutable\/(?:entry|nodes)\//, async (route) => {
        await held
        await route.continue()
      })
      // The time since a create goes on too.
      await page.clock.setFixedTime(Date.now())
      await page.goto(`${platform.url}/dashboard/capsules`, { waitUntil: 'commit' })
      await page.locator(`#first-paint[inert] [data-capsule="${ids[0]}"]`).waitFor()
      await page.evaluate('document.fonts.ready.then(() => {})')
      const first = await shownIn(tab)
      expect(first.elements).toContain('B seen <first> style="x"')
      come()
      await page.locator('#first-paint').waitFor({ state: 'detached' })
      await page.locator(`#app [data-capsule="${ids[0]}"]`).waitFor()
      expect(await shownIn(tab)).toEqual(first)
      expect(tab.problems).toEqual([])
    }
    for (const id of ids) await api.json('DELETE', `/v1/capsules/${id}`, owner)
  })
})
