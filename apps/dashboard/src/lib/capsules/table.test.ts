import { describe, expect, it } from 'vitest'
import { arrange, countStates, queryOf, type Row, type TableView, viewOf } from './table.js'

const row = (name: string, more: Partial<Row> = {}): Row => ({
  id: `cl-${name}`,
  name,
  shownState: 'running',
  template: 'minimal',
  vcpus: 1,
  memoryMib: 512,
  createdAt: new Date(0),
  labels: {},
  ...more,
})
const view: TableView = { search: '', filter: 'all', sort: 'name', descending: false }
const names = (rows: readonly Row[]) => rows.map(({ name }) => name)

describe('arrange', () => {
  it('sorts names as people count', () => {
    const rows = [row('box-10'), row('Box-2'), row('box-1')]
    expect(names(arrange(rows, view))).toEqual(['box-1', 'Box-2', 'box-10'])
    expect(names(arrange(rows, { ...view, descending: true }))).toEqual(['box-10', 'Box-2', 'box-1'])
  })

  it('puts the newest first where rows are equal', () => {
    const rows = [row('old', { createdAt: new Date(1) }), row('new', { createdAt: new Date(2) })]
    expect(names(arrange(rows, { ...view, sort: 'template' }))).toEqual(['new', 'old'])
  })

  it('finds every word, in names, ids, templates and labels', () => {
    const rows = [row('web', { labels: { job: 'ci-42' } }), row('db', { template: 'postgres' })]
    expect(names(arrange(rows, { ...view, search: 'job=ci CL-w' }))).toEqual(['web'])
    expect(names(arrange(rows, { ...view, search: 'postgres' }))).toEqual(['db'])
    expect(arrange(rows, { ...view, search: 'web postgres' })).toEqual([])
  })

  it('shows the states of a filter', () => {
    const rows = [row('a'), row('b', { shownState: 'paused' }), row('c', { shownState: 'error' })]
    expect(names(arrange(rows, { ...view, filter: 'trouble' }))).toEqual(['c'])
    expect(names(arrange(rows, { ...view, filter: 'paused' }))).toEqual(['b'])
    expect(
      names(arrange([...rows, row('d', { shownState: 'hibernated' })], { ...view, filter: 'hibernated' })),
    ).toEqual(['d'])
  })

  it('leaves what it was given', () => {
    const rows = [row('b'), row('a')]
    arrange(rows, view)
    expect(names(rows)).toEqual(['b', 'a'])
  })
})

describe('countStates', () => {
  it('says how many each filter shows', () => {
    const rows = [row('a'), row('b', { shownState: 'paused' }), row('c', { shownState: 'hibernated' })]
    expect(countStates([...rows, row('d', { shownState: 'missing' }), row('e', { shownState: 'stopping' })])).toEqual({
      all: 5,
      running: 1,
      paused: 1,
      hibernated: 1,
      changing: 1,
      trouble: 1,
    })
  })
})

describe('the address of a view', () => {
  it('leads back to the view', () => {
    const views: TableView[] = [
      { search: 'a b&c', filter: 'trouble', sort: 'size', descending: true },
      { search: '', filter: 'all', sort: 'created', descending: false },
      { search: '', filter: 'all', sort: 'created', descending: true },
    ]
    for (const each of views) expect(viewOf(new URLSearchParams(queryOf(each)))).toEqual(each)
  })

  it('is empty for the usual view', () => {
    expect(queryOf(viewOf(new URLSearchParams('')))).toBe('')
  })

  it('takes nonsense for nothing', () => {
    expect(queryOf(viewOf(new URLSearchParams('state=on-fire&sort=colour.desc')))).toBe('')
  })
})
