import { expect, it } from 'vitest'
import { BuildGuest } from './guest.js'

type Deps = ConstructorParameters<typeof BuildGuest>[0]
type Row = ConstructorParameters<typeof BuildGuest>[1]

/** A host whose archives begin, have one piece, and then say nothing more. */
function silentHost(): Deps {
  const never = new Promise<never>(() => {})
  const client = {
    async *readArchive() {
      yield { part: { case: 'begin', value: {} } }
      yield { part: { case: 'chunk', value: new Uint8Array([1]) } }
      await never
    },
  }
  return { host: { client }, wake: { use: (_: unknown, task: () => unknown) => task() } } as unknown as Deps
}

it('leaves an archive that says nothing more when the build ends', async () => {
  const build = new AbortController()
  const row = { id: 'cl-1', team_id: 'team', generation: 1 } as unknown as Row
  const pieces = new BuildGuest(silentHost(), row, build.signal).archive('/tree')
  expect((await pieces.next()).value).toEqual(new Uint8Array([1]))
  const next = pieces.next()
  build.abort(new Error('cancelled'))
  await expect(next).rejects.toThrow('cancelled')
  expect((await pieces.next()).done).toBe(true)
})
