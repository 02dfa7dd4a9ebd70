import type { BuildLine } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { phasesOf } from './phases.js'

/** One a second. */
const logOf = (...lines: readonly (readonly [step: string, message: string])[]): BuildLine[] =>
  lines.map(([step, message], index) => ({ at: new Date(index * 1000), level: 'info', step, message }))
const ended = { state: 'ready', endedAt: new Date(60_000) } as const
const open = { state: 'building', endedAt: undefined } as const

describe('the parts of a build', () => {
  const log = logOf(
    ['base', 'Asking for docker.io/library/alpine:3'],
    ['base', 'FROM alpine:3'],
    ['1', 'CACHED [1/4] WORKDIR /app'],
    ['2', '[2/4] RUN make (all) (step changed)'],
    ['2', 'cc -o a a.c'],
    ['2', 'DONE [2/4] 2.0 s'],
    ['base', 'FROM base'],
    ['3', '[3/4] COPY . . (file a (1).txt changed, b is new and 2 more)'],
    ['3', 'DONE [3/4] 1.0 s'],
    ['4', '[4/4] RUN (true)'],
    ['4', 'DONE [4/4] 1.0 s'],
    ['finalize', 'Everything is done; the template is called web now.'],
  )

  it('are what it begins with, each step, and the template, with times and reasons', () => {
    const told = phasesOf(log, ended).map(({ key, title, state, reason, startedAt, endedAt }) => [
      ...[key, title, state, reason],
      startedAt === undefined || endedAt === undefined ? undefined : (endedAt.getTime() - startedAt.getTime()) / 1000,
    ])
    expect(told).toEqual([
      ['base', 'FROM alpine:3', 'done', undefined, 2],
      ['1', 'WORKDIR /app', 'cached', undefined, undefined],
      ['2', 'RUN make (all)', 'done', 'step changed', 3],
      ['base.2', 'FROM base', 'done', undefined, 1],
      ['3', 'COPY . .', 'done', 'file a (1).txt changed, b is new and 2 more', 2],
      ['4', 'RUN (true)', 'done', undefined, 2],
      ['finalize', 'Making the template', 'done', undefined, 49],
    ])
    expect(
      phasesOf(log, ended)
        .map(({ first, end }) => [first, end])
        .at(2),
    ).toEqual([3, 6])
  })

  it('end as the build does', () => {
    const half = log.slice(0, 5)
    const last = (build: Parameters<typeof phasesOf>[1]) => phasesOf(half, build).at(-1)
    expect(last(open)).toMatchObject({ key: '2', state: 'running', endedAt: undefined })
    expect(last({ state: 'error', endedAt: new Date(9_000) })).toMatchObject({
      state: 'failed',
      endedAt: new Date(9_000),
    })
    expect(last({ state: 'cancelled', endedAt: new Date(9_000) })?.state).toBe('cancelled')
    expect(phasesOf([], open)).toEqual([])
  })

  it('are not what a command prints', () => {
    const forged = logOf(
      ['base', 'FROM base'],
      ['1', '[1/1] RUN ./print'],
      ['1', 'FROM elsewhere'],
      ['1', 'CACHED [1/1] RUN ./print'],
      ['1', '[2/2] RUN more (new step)'],
    )
    expect(phasesOf(forged, open).map(({ title, state }) => [title, state])).toEqual([
      ['FROM base', 'done'],
      ['RUN ./print', 'running'],
    ])
  })

  it('say which step was begun again, and when two stages begin at once', () => {
    const again = logOf(
      ['base', 'FROM base'],
      ['base', 'FROM other'],
      ['1', '[1/1] RUN make'],
      ['1', 'half'],
      ['base', 'The build was interrupted and goes on.'],
      ['base', 'FROM base'],
      ['1', '[1/1] RUN make'],
    )
    expect(phasesOf(again, open).map(({ key, state }) => [key, state])).toEqual([
      ['base', 'done'],
      ['base.2', 'done'],
      ['1', 'interrupted'],
      ['base.3', 'done'],
      ['1.2', 'running'],
    ])
  })
})
