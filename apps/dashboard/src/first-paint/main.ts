import { Wrenn } from '@wrenn/sdk'
import { capsuleInfo, listedTeamInfo, meInfo } from '@wrenn/sdk/answers'
import { render } from 'svelte/server'
import { CapsuleList } from '../lib/capsules/capsule-list.svelte.js'
import { FIRST_ROWS } from '../lib/capsules/first-rows.js'
import { Clock } from '../lib/clock.svelte.js'
import type { Shell, Workspace } from '../lib/context.js'
import { peekAtAnswer } from '../lib/early-answers.js'
import { FIRST_PAINT_ID } from '../lib/first-paint.js'
import { Live } from '../lib/live.svelte.js'
import { Session } from '../lib/session.svelte.js'
import { Theme } from '../lib/theme.svelte.js'
import { Toasts } from '../lib/toasts.svelte.js'
import FirstPaint from './FirstPaint.svelte'

/** Only the parser of a page is kept from styles in attributes; these two are in rows and what is around them. */
const STYLES = /(<t(?:body|r)\b[^<>]*) style="([^"]*)"/g

/**
 * Writes the list of capsules as a text, by the components that the application makes it of, and shows that until the application is there.
 * @returns whether there is something to be shown
 */
async function paint(): Promise<boolean> {
  const answers = globalThis.wrennEarlyAnswers
  const [me, teams, listed] = await Promise.all([
    peekAtAnswer<Parameters<typeof meInfo>[0]>(answers, '/v1/me'),
    peekAtAnswer<Parameters<typeof listedTeamInfo>[0][]>(answers, '/v1/teams'),
    peekAtAnswer<Parameters<typeof capsuleInfo>[0][]>(answers, '/v1/capsules'),
  ])
  // An application that has come meanwhile knows more; what is there without capsules is no list.
  if (listed.length === 0 || document.querySelector('main') !== null) return false

  const wrenn = new Wrenn()
  const session = new Session(wrenn)
  session.me = meInfo(me)
  session.teams = teams.map(listedTeamInfo)
  const capsules = new CapsuleList(wrenn)
  for (const capsule of listed) capsules.put(capsuleInfo(capsule))
  capsules.isLoaded = listed.length < FIRST_ROWS
  const theme = new Theme(localStorage, matchMedia('(prefers-color-scheme: light)'))
  const shell: Shell = { wrenn, session, theme, toasts: new Toasts() }
  const workspace: Workspace = { live: new Live(wrenn), capsules, clock: new Clock() }
  const { body } = render(FirstPaint, { props: { shell, workspace } })

  const painted = document.createElement('div')
  painted.id = FIRST_PAINT_ID
  painted.inert = true
  painted.innerHTML = body.replace(STYLES, '$1 data-style="$2"')
  for (const each of painted.querySelectorAll<HTMLElement>('[data-style]'))
    each.style.cssText = each.dataset.style ?? ''
  document.body.prepend(painted)
  return true
}

function applicationMayCome(): void {
  globalThis.wrennPainted?.()
}

/** Once it has reached the screen: what comes before that takes the processors from it. */
function onPainted(then: () => void): void {
  new PerformanceObserver((list, observer) => {
    if (list.getEntriesByName('first-contentful-paint').length === 0) return
    observer.disconnect()
    then()
  }).observe({ type: 'paint', buffered: true })
}

paint().then(
  (isShown) => {
    // A page that nobody looks at is not painted.
    if (isShown && !document.hidden) onPainted(applicationMayCome)
    else applicationMayCome()
  },
  // Whatever it is, the application meets it too, and can tell.
  applicationMayCome,
)
