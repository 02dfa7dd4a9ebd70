import type { BuildInfo } from '@wrenn/sdk'

/** How a build does, in a word, and its colour. */
export interface BuildMark {
  readonly word: string
  readonly tone: string
  /** It goes on without anybody. */
  readonly isMoving: boolean
}

const marks: Readonly<Record<string, BuildMark>> = {
  draft: { word: 'getting files', tone: 'text-blue', isMoving: true },
  waiting: { word: 'waiting', tone: 'text-blue', isMoving: true },
  building: { word: 'building', tone: 'text-blue', isMoving: true },
  ready: { word: 'ready', tone: 'text-sage', isMoving: false },
  error: { word: 'failed', tone: 'text-red', isMoving: false },
  cancelled: { word: 'cancelled', tone: 'text-text-4', isMoving: false },
}

/** A newer server may have states that this page lacks. */
export function markOf(state: string): BuildMark {
  return marks[state] ?? { word: state, tone: 'text-text-3', isMoving: false }
}

/** Which builds are listed, by the word of the address. */
export const buildFilters = [
  { state: undefined, label: 'all' },
  { state: 'open', label: 'under way' },
  { state: 'ready', label: 'ready' },
  { state: 'error', label: 'failed' },
  { state: 'cancelled', label: 'cancelled' },
] as const

/** What a build is called: its template, with a tag where it has one. */
export function templateOf({ name, tags }: Pick<BuildInfo, 'name' | 'tags'>): string {
  const [tag] = tags
  return tag === undefined || tags.includes('default') ? name : `${name}:${tag}`
}

/** Who began it, for people. */
export function beginnerOf({ by }: Pick<BuildInfo, 'by'>): string {
  if (by === undefined) return 'the platform'
  if (by.name === '') return 'somebody who has left'
  return by.type === 'key' ? `key ${by.name}` : by.name
}

/** How long it took, or has taken until now. */
export function spanMs({ createdAt, endedAt }: Pick<BuildInfo, 'createdAt' | 'endedAt'>, now: Date): number {
  return Math.max(0, (endedAt ?? now).getTime() - createdAt.getTime())
}

/** How many steps it has, for people; empty while that is not known. */
export function stepsText({ steps, cachedSteps }: Pick<BuildInfo, 'steps' | 'cachedSteps'>): string {
  return [steps ?? [], cachedSteps === undefined ? [] : `${cachedSteps} cached`].flat().join(', ')
}
