import { mkdirSync } from 'node:fs'
import { type ArchiveEnd, ArchiveUnframer } from '@wrenn/protocol'
import fc from 'fast-check'
import { expect } from 'vitest'
import { parentOf } from './change-steps.js'
import { type Who, word } from './shell.js'
import { type EntrySpec, plant, treeSpec } from './tree.js'
import { anyPath, anyWho, expectRefused, expectSameTrees, type PathSpec, type World } from './world.js'

export interface ReadArchiveSpec {
  readonly do: 'read archive'
  readonly path: PathSpec
  readonly who: Who
}

export const readArchiveStep: fc.Arbitrary<ReadArchiveSpec> = fc.record({
  do: fc.constant('read archive' as const),
  path: anyPath,
  who: anyWho,
})

/** What GNU tar unpacks of the agent's archive is what it unpacks of its own. */
export async function runReadArchive(world: World, { path: spec, who }: ReadArchiveSpec): Promise<void> {
  const path = world.find(spec)
  const name = path.ours.subarray(path.ours.lastIndexOf('/') + 1)
  // A name that begins with a dash is one all the same.
  const member = word(Buffer.concat([Buffer.from('./'), name]))
  const right = await world.machine.run(
    who,
    `tar --create --file=- --format=posix --sparse -C ${word(parentOf(path.ours))} -- ${member}`,
  )
  const answer = await world.ask({ method: 'GET', path: world.url('/archive', path.text, who) })
  if (answer.status !== 200) {
    expect([right.code === 0, answer.body.toString()]).toEqual([false, answer.body.toString()])
    return expectRefused(answer, right.stderr)
  }
  const { tar, end } = unframed(answer.body)
  expect([end?.error === undefined, end?.notes, right.stderr]).toEqual([right.code === 0, end?.notes, right.stderr])
  if (right.code !== 0) return
  const [ours, theirs] = [await unpacked(world, tar), await unpacked(world, right.stdout)]
  await expectSameTrees(world.machine, ours, theirs, true)
}

function unframed(body: Buffer): { readonly tar: Buffer; readonly end: ArchiveEnd | undefined } {
  const unframer = new ArchiveUnframer()
  return { tar: Buffer.concat([...unframer.push(body)]), end: unframer.end }
}

async function unpacked(world: World, tar: Buffer): Promise<string> {
  const dir = world.fresh('unpacked')
  mkdirSync(dir)
  await world.machine.mustRun(`tar --extract --preserve-permissions --same-owner --numeric-owner -f ${word(world.put(tar))} -C ${word(dir)}
    touch -d @0 -- ${word(dir)}`)
  return dir
}

export interface WriteArchiveSpec {
  readonly do: 'write archive'
  readonly path: PathSpec
  readonly who: Who
  readonly tree: readonly EntrySpec[]
  readonly format: string
}

export const writeArchiveStep: fc.Arbitrary<WriteArchiveSpec> = fc.record({
  do: fc.constant('write archive' as const),
  path: anyPath,
  who: anyWho,
  tree: treeSpec,
  format: fc.constantFrom('posix', 'gnu', 'ustar', 'oldgnu', 'v7'),
})

/** What the agent unpacks of a tar is what GNU tar unpacks of it. */
export async function runWriteArchive(world: World, spec: WriteArchiveSpec): Promise<void> {
  const { who, tree, format } = spec
  const path = world.find(spec.path)
  const source = world.fresh('source')
  mkdirSync(source)
  await plant(world.machine, source, tree)
  // A format that has no room for a name leaves the entry out, with exit code 2.
  const tar = await world.machine.mustRun(`tar --create --file=- --format=${format} -C ${word(source)} . || [ $? = 2 ]`)
  const flags = '--preserve-permissions --no-same-owner --numeric-owner --keep-directory-symlink'
  const right = await world.machine.run(
    who,
    `mkdir -p -- ${word(path.theirs)} && tar --extract ${flags} -f ${word(world.put(tar))} -C ${word(path.theirs)}`,
  )
  const answer = await world.ask({ method: 'POST', path: world.url('/archive', path.text, who), body: tar })
  if (right.code !== 0) return expectRefused(answer, right.stderr)
  expect([answer.status, answer.body.toString()]).toEqual([200, answer.body.toString()])
}
