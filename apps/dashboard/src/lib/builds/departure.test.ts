import type { Recipe } from '@wrenn/sdk'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { Departure, type Reading } from './departure.svelte.js'

const ID = `bld-${'0'.repeat(25)}`
const build = { id: ID, name: 'web', tags: [], state: 'draft', log_lines: 0, created_at: '2026-01-02T03:04:05Z' }
const recipe: Recipe = { stages: [{ from: 'base', steps: [] }], uploads: [] }
const asked: string[] = []

/** As the platform's pages are: the session is in cookies. */
async function answer(input: string | URL | Request, { method = 'GET' }: RequestInit = {}): Promise<Response> {
  asked.push(`${method} ${new URL(String(input)).pathname.replace(ID, 'ID')}`)
  return Response.json(build, { status: 201 })
}

// Without the compiler of Svelte, states are plain fields.
const plain = <Value>(value: Value): Value => value
beforeAll(() => {
  vi.stubGlobal('$state', Object.assign(plain, { raw: plain }))
  vi.stubGlobal('location', { origin: 'http://wrenn.test' })
  vi.stubGlobal('fetch', answer)
})
afterAll(() => {
  vi.unstubAllGlobals()
})
beforeEach(() => {
  asked.length = 0
})

describe('a build on its way', () => {
  it('is read, then sent, and says how far it is', async () => {
    const departure = new Departure()
    const seen: unknown[] = []
    const read = async ({ onRead }: Reading): Promise<Recipe> => {
      onRead(3)
      onRead(4)
      seen.push(departure.stage, departure.doneBytes)
      return recipe
    }
    expect((await departure.begin('web', read, {}))?.id).toBe(ID)
    expect(seen).toEqual(['reading', 7])
    expect([departure.stage, departure.doneBytes]).toEqual([undefined, 0])
    expect(asked).toEqual(['POST /v1/templates/builds', 'POST /v1/templates/builds/ID/start'])
  })

  it('that is stopped begins nothing', async () => {
    const departure = new Departure()
    const read = async (): Promise<Recipe> => {
      departure.stop()
      return recipe
    }
    expect(await departure.begin('web', read, {})).toBe(undefined)
    expect([departure.stage, asked]).toEqual([undefined, []])
  })

  it('that cannot be read says why, and may be begun again', async () => {
    const departure = new Departure()
    const read = () => Promise.reject(new Error('gone'))
    await expect(departure.begin('web', read, {})).rejects.toThrow('gone')
    expect((await departure.begin('web', async () => recipe, {}))?.id).toBe(ID)
  })
})
