import { expect, it } from 'vitest'
import type { Host } from '../../host/host.js'
import { openTemplateArchive } from '../points/template-archive.js'
import { openArchive } from './archive.js'
import type { FileTarget } from './files.js'

/** A host that begins an archive, and what of its one call is still open. */
function host() {
  let open: AbortSignal | undefined
  const begin = (_: unknown, { signal }: { readonly signal: AbortSignal }) => {
    open = signal
    return (async function* () {
      yield { part: { case: 'begin', value: {} } }
    })()
  }
  return { client: { readArchive: begin, exportSnapshot: begin }, isOver: () => open?.aborted }
}

it.each([
  [
    'of files',
    (client: object) =>
      openArchive({
        client,
        wake: { use: async (_: unknown, task: () => unknown) => await task() },
        capsule: { id: 'cl-1' },
        path: '/',
      } as unknown as FileTarget), // as much of one as an archive takes
  ],
  ['of a template', (client: object) => openTemplateArchive({ client } as unknown as Host, {})],
])('an archive %s that nobody reads ends its call when it is aborted', async (_, openIt) => {
  const { client, isOver } = host()
  const archive = await openIt(client)
  expect(isOver()).toBe(false)
  archive.abort()
  expect(isOver()).toBe(true)
})
