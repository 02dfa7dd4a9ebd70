/**
 * As `Promise.all`, but one that fails is reported only when all have ended: whatever the others made is there by then and
 * can be undone.
 */
export async function settleAll<T extends readonly unknown[]>(
  tasks: readonly [...{ [Index in keyof T]: Promise<T[Index]> }],
): Promise<T> {
  await Promise.allSettled(tasks)
  // They have all ended: this only tells how. The array has as many results as there are tasks, in their order.
  return (await Promise.all(tasks)) as unknown as T
}
