import { checkpointIds } from '@wrenn/base'
import type { FileChange } from '@wrenn/protocol/host'
import { describe, expect, it } from 'vitest'
import { drain, failure, type TestCapsule } from './host-client.js'
import { checkpoint, pause, stateOf, type TestHost } from './test-host.js'

/** What changed between two points in time. */
export function describeDiff(host: TestHost): void {
  describe('a diff', { timeout: host.timeoutMs }, () => {
    const diff = async ({ client, id }: TestCapsule, from: string, to: string, path: string): Promise<FileChange[]> => {
      const request = { capsuleId: id, fromCheckpointId: from, toCheckpointId: to, path }
      return (await drain(client.diffCheckpoints(request))).flatMap(({ changes }) => changes)
    }
    const brief = (changes: readonly FileChange[]) =>
      changes.map(({ change, path, type, what }) => [change, path.replace(/^.*\/diff\//, ''), type, ...what])

    it('lists exactly what was added, changed and removed, by path, whatever the names are', async () => {
      const capsule = await host.create()
      await capsule.output('mkdir -p diff/gone diff/empty beside')
      await capsule.output(
        'cd diff && for name in edited grown mode removed same touched gone/inner; do echo 1 > $name; done',
      )
      await capsule.output('cd diff && ln -s same link && ln -s same same-link && mkdir file-now && chmod 644 mode')
      const { checkpointId: from } = await checkpoint(capsule)
      await capsule.output('cd diff && echo 2 > edited && echo more >> grown && chmod 755 mode && echo 1 > same')
      await capsule.output(
        'cd diff && touch touched && rm -r removed gone file-now && ln -sfn edited link && echo 1 > file-now',
      )
      await capsule.output('cd diff && mkdir new && echo 1 > new/inner; echo 1 > ../beside/other')
      const odd = ['.hidden', '-dash', ' blank ', 'line\nbreak', 'quote\'"', 'back\\slash', 'ünïcödé', '日本', '*?[x]']
      for (const name of odd) await capsule.outputOf('/bin/sh', ['-c', 'printf 12345 > "diff/$1"', 'sh', name])
      await capsule.outputOf('/bin/sh', ['-c', 'touch "diff/$(printf \'not-text-\\377\')"'])
      const { checkpointId: to } = await checkpoint(capsule)

      const expected = [
        ...odd.map((name) => ['added', name, 'file']),
        ['added', 'not-text-\ufffdff', 'file'],
        ['changed', 'edited', 'file', 'content'],
        ['changed', 'file-now', 'file', 'type'],
        ['removed', 'gone', 'directory'],
        ['removed', 'gone/inner', 'file'],
        ['changed', 'grown', 'file', 'content'],
        ['changed', 'link', 'symlink', 'target'],
        ['changed', 'mode', 'file', 'mode'],
        ['added', 'new', 'directory'],
        ['added', 'new/inner', 'file'],
        ['removed', 'removed', 'file'],
      ].sort(([, a = ''], [, b = '']) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      const changes = await diff(capsule, from, to, '/root/diff')
      // What else differs between paths of two types does not matter.
      const shown = brief(changes).map((row) => (row.includes('type') ? [...row.slice(0, 3), 'type'] : row))
      expect(shown).toEqual(expected)
      expect(changes.every(({ path }) => path.startsWith('/root/diff/'))).toBe(true)
      expect(changes.find(({ path }) => path.endsWith('日本'))?.size).toBe(5n)
      expect(brief(await diff(capsule, from, '', '/root/diff'))).toEqual(brief(changes))
      expect((await diff(capsule, from, to, '')).map(({ path }) => path)).toContain('/root/beside/other')
      expect(await diff(capsule, to, '', '/root/diff')).toEqual([])
      expect(await diff(capsule, from, from, '')).toEqual([])
      const back = await diff(capsule, to, from, '/root/diff/new')
      expect(brief(back)).toEqual([
        ['removed', 'new', 'directory'],
        ['removed', 'new/inner', 'file'],
      ])
      expect(await stateOf(capsule)).toBe('running')
    })

    it('shows what a paused capsule has that its checkpoint has not', async () => {
      const capsule = await host.create()
      await capsule.output('mkdir diff')
      const { checkpointId } = await checkpoint(capsule)
      await capsule.write('/root/diff/file', 'text')
      await pause(capsule)
      expect(brief(await diff(capsule, checkpointId, '', '/root/diff'))).toEqual([['added', 'file', 'file']])
      expect(await stateOf(capsule)).toBe('paused')
    })

    it('tells what a file held at either point, and now', async () => {
      const capsule = await host.create()
      await capsule.output('mkdir diff && printf old > diff/file && printf gone > diff/gone && ln -s file diff/link')
      const { checkpointId: from } = await checkpoint(capsule)
      await capsule.output('printf new > diff/file && rm diff/gone')
      const { checkpointId: to } = await checkpoint(capsule)
      await capsule.output("printf 'a\\000b' > diff/file")
      const read = async (checkpointId: string, name: string, maxBytes = 1024) => {
        const request = { capsuleId: capsule.id, checkpointId, path: `/root/diff/${name}`, maxBytes }
        return Buffer.from((await capsule.client.readCheckpointFile(request)).content).toString()
      }
      expect(await read(from, 'file')).toBe('old')
      expect(await read(to, 'file')).toBe('new')
      expect(await read('', 'file')).toBe('a\0b')
      expect(await read(from, 'gone', 4)).toBe('gone')
      expect(await failure(read(from, 'gone', 3))).toBe('too_large')
      expect(await failure(read(to, 'gone'))).toBe('file_not_found')
      expect(await failure(read(to, '.'))).toBe('is_a_directory')
      expect(await failure(read(to, 'link'))).toBe('invalid_request')
      expect(await failure(read(checkpointIds.create(), 'file'))).toBe('checkpoint_not_found')
    })

    it('needs checkpoints that exist', async () => {
      const capsule = await host.create()
      const { checkpointId } = await checkpoint(capsule)
      expect(await failure(diff(capsule, checkpointIds.create(), '', ''))).toBe('checkpoint_not_found')
      expect(await failure(diff(capsule, checkpointId, checkpointIds.create(), ''))).toBe('checkpoint_not_found')
    })
  })
}
