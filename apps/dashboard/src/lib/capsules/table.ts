import type { CapsuleState } from '@wrenn/sdk'

/** As high as the style sheet makes a row. */
export const ROW_PX = 49

/** Columns that a list of capsules is sorted by. */
export const sortKeys = ['name', 'state', 'template', 'size', 'created'] as const
export type SortKey = (typeof sortKeys)[number]

/** Which states are shown together. */
export const stateFilters = ['all', 'running', 'paused', 'hibernated', 'changing', 'trouble'] as const
export type StateFilter = (typeof stateFilters)[number]

/** How the list is shown; all of it is in the address. */
export interface TableView {
  readonly search: string
  readonly filter: StateFilter
  readonly sort: SortKey
  readonly descending: boolean
}

/** What is needed of a capsule. */
export interface Row {
  readonly id: string
  readonly name: string | undefined
  readonly shownState: CapsuleState
  readonly template: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly createdAt: Date
  readonly labels: Readonly<Record<string, string>>
}

const DEFAULT: TableView = { search: '', filter: 'all', sort: 'created', descending: true }

const byFilter: Readonly<Record<Exclude<StateFilter, 'all'>, readonly CapsuleState[]>> = {
  running: ['running'],
  paused: ['paused'],
  hibernated: ['hibernated'],
  changing: ['pending', 'starting', 'pausing', 'resuming', 'stopping'],
  trouble: ['error', 'missing'],
}

/** Whether the capsule is among those of the filter. */
export function isIn(filter: StateFilter, state: CapsuleState): boolean {
  return filter === 'all' || byFilter[filter].includes(state)
}

/** How many of them each filter shows. */
export function countStates(rows: readonly Row[]): Readonly<Record<StateFilter, number>> {
  const counts = { all: rows.length, running: 0, paused: 0, hibernated: 0, changing: 0, trouble: 0 }
  for (const { shownState } of rows) {
    for (const filter of stateFilters) if (filter !== 'all' && isIn(filter, shownState)) counts[filter]++
  }
  return counts
}

/** The rows that are asked for, in their order; equal ones newest first. */
export function arrange<R extends Row>(rows: readonly R[], { search, filter, sort, descending }: TableView): R[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean)
  const wanted = rows.filter((row) => isIn(filter, row.shownState) && words.every((word) => textOf(row).includes(word)))
  const direction = descending ? -1 : 1
  return wanted.sort(
    (one, other) => direction * comparators[sort](one, other) || other.createdAt.getTime() - one.createdAt.getTime(),
  )
}

function textOf({ id, name, template, labels }: Row): string {
  const labelled = Object.entries(labels).map(([key, value]) => `${key}=${value}`)
  return [id, name ?? '', template, ...labelled].join(' ').toLowerCase()
}

let collator: Intl.Collator | undefined

/** As people sort. What compares is made when it is first needed, which the first page does without. */
function compareText(one: string, other: string): number {
  collator ??= new Intl.Collator('en', { numeric: true, sensitivity: 'base' })
  return collator.compare(one, other)
}

const comparators: Readonly<Record<SortKey, (one: Row, other: Row) => number>> = {
  name: (one, other) => compareText(one.name ?? one.id, other.name ?? other.id),
  state: (one, other) => compareText(one.shownState, other.shownState),
  template: (one, other) => compareText(one.template, other.template),
  size: (one, other) => one.vcpus - other.vcpus || one.memoryMib - other.memoryMib,
  created: (one, other) => one.createdAt.getTime() - other.createdAt.getTime(),
}

/** The view that an address asks for; what it says wrong is as if it were not there. */
export function viewOf(query: URLSearchParams): TableView {
  const [sort, order] = (query.get('sort') ?? '').split('.')
  const key = sortKeys.find((known) => known === sort)
  return {
    search: query.get('q') ?? DEFAULT.search,
    filter: stateFilters.find((known) => known === query.get('state')) ?? DEFAULT.filter,
    sort: key ?? DEFAULT.sort,
    descending: key === undefined ? DEFAULT.descending : order === 'desc',
  }
}

/** The shortest query that means the view. */
export function queryOf({ search, filter, sort, descending }: TableView): string {
  const query = new URLSearchParams()
  if (search !== '') query.set('q', search)
  if (filter !== DEFAULT.filter) query.set('state', filter)
  if (sort !== DEFAULT.sort || descending !== DEFAULT.descending) query.set('sort', descending ? `${sort}.desc` : sort)
  const text = query.toString()
  return text === '' ? '' : `?${text}`
}
