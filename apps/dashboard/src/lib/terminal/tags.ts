const OURS = /^shell-(\d+)$/

/** The name of another terminal: the first number that is not taken. */
export function newTag(taken: readonly string[]): string {
  const numbers = new Set(taken.map((tag) => Number(OURS.exec(tag)?.[1] ?? 0)))
  let number = 1
  while (numbers.has(number)) number += 1
  return `shell-${number}`
}

/** Those of this page in the order in which they were opened, then those that somebody else has opened. */
export function orderedTags(tags: readonly string[]): string[] {
  const order = (tag: string): number => Number(OURS.exec(tag)?.[1] ?? Number.POSITIVE_INFINITY)
  return [...tags].sort((one, other) => {
    const [first, second] = [order(one), order(other)]
    return first === second ? one.localeCompare(other) : first - second
  })
}
