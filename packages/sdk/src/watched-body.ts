/** A body whose own failure can be told from that of the connection: `fetch` says of both that it failed. */
export class WatchedBody {
  readonly stream: ReadableStream<Uint8Array>
  #failure: unknown

  /** @param source is cancelled with the stream */
  constructor(source: ReadableStream<Uint8Array>) {
    const reader = source.getReader()
    this.stream = new ReadableStream<Uint8Array>({
      pull: async (controller) => {
        try {
          const { done, value } = await reader.read()
          if (done) controller.close()
          else controller.enqueue(value)
        } catch (error) {
          this.#failure = error
          throw error
        }
      },
      cancel: (reason) => reader.cancel(reason),
    })
  }

  /** What reading the source has failed with; else `error`. */
  reasonOf(error: unknown): unknown {
    return this.#failure ?? error
  }
}
