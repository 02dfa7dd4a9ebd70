import { setImmediate as nextTurn } from 'node:timers/promises'

/** Names handled in one turn of the event loop: about two milliseconds of work. */
const NAMES_PER_TURN = 4096

/** The keys of all maps, each once, in the order of their bytes (they are latin1). Large folders do not hold up the process. */
export async function sortedNames(
  maps: ReadonlyArray<ReadonlyMap<string, unknown> | undefined>,
): Promise<readonly string[]> {
  const runs: string[][] = []
  for (const map of maps) {
    let run: string[] = []
    for (const name of map?.keys() ?? []) {
      run.push(name)
      if (run.length < NAMES_PER_TURN) continue
      runs.push(run.sort(compareNames))
      run = []
      await nextTurn()
    }
    if (run.length > 0) runs.push(run.sort(compareNames))
  }
  return await mergeAll(runs)
}

async function mergeAll(runs: readonly string[][]): Promise<readonly string[]> {
  let left = runs
  while (left.length > 1) {
    const merged: string[][] = []
    for (let index = 0; index < left.length; index += 2) {
      merged.push(await merge(left[index] ?? [], left[index + 1] ?? []))
    }
    left = merged
  }
  return left[0] ?? []
}

/** Of two ascending lists without doubles; a name in both comes once. */
async function merge(a: readonly string[], b: readonly string[]): Promise<string[]> {
  const result: string[] = []
  let at = 0
  let bt = 0
  while (at < a.length || bt < b.length) {
    const left = a[at]
    const right = b[bt]
    const takesLeft = right === undefined || (left !== undefined && left <= right)
    const name = takesLeft ? left : right
    if (name !== undefined) result.push(name)
    if (left === name) at += 1
    if (right === name) bt += 1
    if (result.length % NAMES_PER_TURN === 0) await nextTurn()
  }
  return result
}

function compareNames(a: string, b: string): number {
  return a < b ? -1 : 1
}
