import { waitFor } from '@wrenn/base'
import type { Event } from '@wrenn/protocol'
import { afterEach } from 'vitest'

/** Follows streams that end with their test. */
export function useEventStreams(): typeof EventStream.follow {
  const streams: EventStream[] = []
  afterEach(() => {
    for (const stream of streams.splice(0)) stream.end()
  })
  return async (...asked) => {
    const stream = await EventStream.follow(...asked)
    streams.push(stream)
    return stream
  }
}

/** What comes of a stream of events, as it comes. */
export class EventStream {
  readonly events: Event[] = []
  comments = 0
  isOver = false
  readonly #abort: AbortController

  private constructor(body: ReadableStream<Uint8Array>, abort: AbortController) {
    this.#abort = abort
    void this.#read(body).catch(() => {})
  }

  /** Follows `GET /v1/events` of a control plane. */
  static async follow(url: string, headers: Readonly<Record<string, string>>, query = ''): Promise<EventStream> {
    const abort = new AbortController()
    const response = await fetch(`${url}/v1/events${query}`, { headers, signal: abort.signal })
    const type = response.headers.get('content-type')
    if (response.body === null || response.status !== 200 || type !== 'text/event-stream') {
      throw new Error(`${response.status} ${type} ${await response.text()}`)
    }
    return new EventStream(response.body, abort)
  }

  /** The first event of this type about this. */
  async event(type: string, resourceId?: string): Promise<Event> {
    const find = () =>
      this.events.find((each) => each.type === type && (resourceId ?? each.resource_id) === each.resource_id)
    return await waitFor(async () => find(), { timeoutMs: 20_000, what: `${type} of ${resourceId}` })
  }

  async until(what: string, isSo: () => boolean): Promise<void> {
    await waitFor(async () => (isSo() ? true : undefined), { timeoutMs: 20_000, what })
  }

  end(): void {
    this.#abort.abort()
  }

  async #read(body: ReadableStream<Uint8Array>): Promise<void> {
    let text = ''
    const decoder = new TextDecoder()
    try {
      for await (const chunk of body) {
        text += decoder.decode(chunk, { stream: true })
        const blocks = text.split('\n\n')
        text = blocks.pop() ?? ''
        for (const block of blocks) this.#take(block)
      }
    } finally {
      this.isOver = true
    }
  }

  #take(block: string): void {
    if (block.startsWith(':')) {
      this.comments++
      return
    }
    const [, id, type, data = ''] = /^id: (.*)\nevent: (.*)\ndata: (.*)$/.exec(block) ?? []
    const event: Event = JSON.parse(data)
    if (event.id !== id || event.type !== type) throw new Error(`not of one event: ${block}`)
    this.events.push(event)
  }
}
