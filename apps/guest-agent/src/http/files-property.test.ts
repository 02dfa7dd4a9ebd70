import fc from 'fast-check'
import { afterAll, beforeAll, describe, it } from 'vitest'
import { AgentHarness } from '../testing/agent-harness.js'
import {
  type ReadArchiveSpec,
  readArchiveStep,
  runReadArchive,
  runWriteArchive,
  type WriteArchiveSpec,
  writeArchiveStep,
} from '../testing/files/archive-steps.js'
import {
  type EntrySpecs,
  entryStep,
  type RaceSpec,
  raceStep,
  runEntry,
  runRace,
  runWrite,
  type WriteSpec,
  writeStep,
} from '../testing/files/change-steps.js'
import { type LookSpec, lookStep, runLook } from '../testing/files/look-steps.js'
import { type ReadSpec, readStep, runRead } from '../testing/files/read-steps.js'
import { Machine } from '../testing/files/shell.js'
import { treeSpec } from '../testing/files/tree.js'
import { World } from '../testing/files/world.js'

/** `WRENN_FILE_CASES=2000` for the long run; `WRENN_FILE_SEED` for one that has failed, with `WRENN_FILE_PATH` its smallest case alone. */
const numRuns = Number(process.env.WRENN_FILE_CASES ?? 30)
const { WRENN_FILE_SEED: seed, WRENN_FILE_PATH: path } = process.env
const replayed = { ...(seed === undefined ? {} : { seed: Number(seed) }), ...(path === undefined ? {} : { path }) }
const CASE_MS = 10_000

let harness: AgentHarness
let machine: Machine
beforeAll(async () => {
  harness = await AgentHarness.start()
  machine = new Machine()
})
afterAll(async () => {
  machine[Symbol.dispose]()
  await harness[Symbol.asyncDispose]()
})

type Step = ReadSpec | WriteSpec | RaceSpec | EntrySpecs | LookSpec | ReadArchiveSpec | WriteArchiveSpec

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: readStep },
  { weight: 5, arbitrary: writeStep },
  { weight: 5, arbitrary: entryStep },
  { weight: 4, arbitrary: lookStep },
  { weight: 1, arbitrary: raceStep },
  { weight: 2, arbitrary: readArchiveStep },
  { weight: 2, arbitrary: writeArchiveStep },
)

async function run(world: World, each: Step): Promise<void> {
  switch (each.do) {
    case 'read':
      return await runRead(world, each)
    case 'write':
      return await runWrite(world, each)
    case 'race':
      return await runRace(world, each)
    case 'look':
      return await runLook(world, each)
    case 'read archive':
      return await runReadArchive(world, each)
    case 'write archive':
      return await runWriteArchive(world, each)
    default:
      return await runEntry(world, each)
  }
}

describe('files through the agent', () => {
  it(
    'are what cat, stat, find, mv, rm and tar make of the same tree',
    async () => {
      const property = fc.asyncProperty(
        treeSpec,
        fc.array(step, { minLength: 1, maxLength: 6 }),
        async (tree, steps) => {
          await using world = await World.make(harness, machine, tree)
          for (const each of steps) {
            await run(world, each)
            if (world.isTorn) return
          }
          await world.expectAlike()
        },
      )
      await fc.assert(property, { numRuns, ...replayed })
    },
    30_000 + numRuns * CASE_MS,
  )
})
