import type { Wrenn } from '@wrenn/sdk'
import { createContext } from 'svelte'
import type { CapsuleList } from './capsules/capsule-list.svelte.js'
import type { Clock } from './clock.svelte.js'
import type { Live } from './live.svelte.js'
import type { Session } from './session.svelte.js'
import type { Theme } from './theme.svelte.js'
import type { Toasts } from './toasts.svelte.js'

/** What every page has. */
export interface Shell {
  readonly wrenn: Wrenn
  readonly session: Session
  readonly theme: Theme
  readonly toasts: Toasts
}

/** What pages of somebody who is signed in have beside that. */
export interface Workspace {
  readonly live: Live
  readonly capsules: CapsuleList
  readonly clock: Clock
}

export const [useShell, provideShell] = createContext<Shell>()
export const [useWorkspace, provideWorkspace] = createContext<Workspace>()
