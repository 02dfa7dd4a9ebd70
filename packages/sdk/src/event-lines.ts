/** One message of a stream of server-sent events. */
export interface StreamMessage {
  readonly data: string
}

/**
 * The messages of a stream (WHATWG HTML, "Server-sent events"), and `undefined` for whatever else comes, which says that it is alive. Ids and
 * names are in our data, so only that is read.
 */
export async function* messagesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamMessage | undefined, void> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      rest += decoder.decode(value, { stream: true })
      const blocks = rest.split('\n\n')
      rest = blocks.pop() ?? ''
      yield undefined
      for (const block of blocks) {
        const data = block.split('\n').flatMap((line) => (line.startsWith('data: ') ? [line.slice(6)] : []))
        if (data.length > 0) yield { data: data.join('\n') }
      }
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}
