/** A teardown that fails the run: Vitest prints what one throws and still ends with 0, so that nobody would see what a suite has left. */
export function countingTeardown(teardown: () => Promise<void>): () => Promise<void> {
  return async () => {
    try {
      await teardown()
    } catch (error) {
      process.exitCode = 1
      throw error
    }
  }
}
