/** One message of a kernel, by Jupyter's messaging protocol 5.3; content is the kernel's and only looked into with care. */
export interface KernelMessage {
  readonly type: string
  /** Of the request that it belongs to. */
  readonly parentId: string | undefined
  readonly content: Readonly<Record<string, unknown>>
}

/** A request on the shell channel. */
export interface ExecuteRequest {
  readonly id: string
  readonly code: string
  /** Neither counted nor shown. */
  readonly silent: boolean
}

/** What comes over the WebSocket as one text frame. @throws SyntaxError for text that is not JSON */
export function parseMessage(text: string): KernelMessage {
  const message = objectOf(JSON.parse(text))
  const header = objectOf(message.header)
  return {
    type: textOf(header.msg_type) ?? '',
    parentId: textOf(objectOf(message.parent_header).msg_id),
    content: objectOf(message.content),
  }
}

/** The frame that asks a kernel to run code. */
export function executeRequest(session: string, { id, code, silent }: ExecuteRequest): string {
  return JSON.stringify({
    header: {
      msg_id: id,
      msg_type: 'execute_request',
      session,
      username: '',
      date: new Date().toISOString(),
      version: '5.3',
    },
    parent_header: {},
    metadata: {},
    content: {
      code,
      silent,
      store_history: !silent,
      user_expressions: {},
      allow_stdin: false,
      // What follows restores the environment, also after an error.
      stop_on_error: false,
    },
    buffers: [],
    channel: 'shell',
  })
}

/** The value itself where it is an object, else an empty one. */
export function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return {}
  return Object.fromEntries(Object.entries(value))
}

/** The value itself where it is text. */
export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
