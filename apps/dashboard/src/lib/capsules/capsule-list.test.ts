import { type CapsuleInfo, type CapsuleState, Wrenn } from '@wrenn/sdk'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { CapsuleList } from './capsule-list.svelte.js'

const ID = 'cl-box'
/** What the list goes by. */
const box = (state: CapsuleState) => ({ id: ID, state }) as CapsuleInfo

describe('a state that was asked for', () => {
  beforeEach(() => {
    // Without the compiler of Svelte, states are plain fields.
    const plain = <Value>(value: Value): Value => value
    vi.stubGlobal('$state', Object.assign(plain, { raw: plain }))
    vi.stubGlobal('$derived', plain)
    // What changes is asked for a little later, which is nothing of these tests.
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
    vi.unstubAllGlobals()
  })

  const listOf = (state: CapsuleState) => {
    const list = new CapsuleList(new Wrenn({ apiUrl: 'http://127.0.0.1:9', apiKey: 'none' }))
    list.put(box(state))
    return list
  }

  it('is shown until it is refused', async () => {
    const list = listOf('running')
    const refused = list.expecting(ID, 'pausing', async () => {
      list.put(box('running'))
      expect(list.get(ID)?.shownState).toBe('pausing')
      throw new Error('refused')
    })
    await expect(refused).rejects.toThrow('refused')
    expect(list.get(ID)?.shownState).toBe('running')
  })

  it('gives way to what the platform says as soon as it is another one, however long the call takes', async () => {
    const list = listOf('running')
    await list.expecting(ID, 'pausing', async () => {
      expect(list.get(ID)?.shownState).toBe('pausing')
      list.put(box('paused'))
      expect(list.get(ID)?.shownState).toBe('paused')
    })
  })
})
