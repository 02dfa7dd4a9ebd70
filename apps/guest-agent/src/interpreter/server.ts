import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { AppError, type Logger } from '@wrenn/base'
import { parseObject, readText, sendError, sendJson } from '../http/reply.js'
import type { EventSink } from './context.js'
import type { Contexts } from './contexts.js'
import { type ExecutionEvent, errorEvent } from './events.js'

const MAX_BODY_BYTES = 64 * 1024 * 1024

/** What is served, once the kernels are there. */
export interface InterpreterOptions {
  /** `undefined` until code can run. */
  readonly contexts: () => Contexts | undefined
  readonly log: Logger
}

/** The server of the code-interpreter protocol, not yet listening. */
export function createInterpreter(options: InterpreterOptions): Server {
  return createServer({ keepAliveTimeout: 600_000, requestTimeout: 0 }, (request, response) => {
    handle(request, response, options).catch((error: unknown) => {
      if (!AppError.is(error)) options.log.error({ error: String(error) }, 'interpreter.failed')
      sendError(response, error)
    })
  })
}

async function handle(
  request: IncomingMessage,
  response: ServerResponse,
  { contexts: ready }: InterpreterOptions,
): Promise<void> {
  const { pathname } = new URL(request.url ?? '/', 'http://guest')
  const contexts = ready()
  if (contexts === undefined) {
    sendJson(response, 503, { code: 503, message: 'The kernels are still starting.' })
    return
  }
  const [, , id, action] = pathname.split('/')
  const shape = `${request.method} ${pathname.replace(/^\/contexts\/[^/]+/, '/contexts/:id')}`
  switch (shape) {
    case 'GET /health':
      return void response.writeHead(200).end('OK')
    case 'POST /execute':
      return await execute(request, response, contexts)
    case 'GET /contexts':
      return sendJson(response, 200, contexts.list())
    case 'POST /contexts': {
      const body = parseObject(await readText(request, MAX_BODY_BYTES), '/contexts')
      return sendJson(response, 201, await contexts.create(optionalText(body, 'language'), optionalText(body, 'cwd')))
    }
    case 'DELETE /contexts/:id':
      await contexts.remove(decodeURIComponent(id ?? ''))
      return void response.writeHead(204).end()
    case 'POST /contexts/:id/restart':
      await (await contexts.find(decodeURIComponent(id ?? ''))).restart()
      return void response.writeHead(204).end()
    default:
      throw new AppError('not_found', `No route ${action === undefined ? pathname : `/contexts/…/${action}`}.`)
  }
}

async function execute(request: IncomingMessage, response: ServerResponse, contexts: Contexts): Promise<void> {
  const body = parseObject(await readText(request, MAX_BODY_BYTES), '/execute')
  const code = optionalText(body, 'code')
  if (code === undefined) throw new AppError('invalid_request', 'code is missing.')
  const [contextId, language] = [optionalText(body, 'context_id'), optionalText(body, 'language')]
  if (contextId !== undefined && language !== undefined) {
    throw new AppError('invalid_request', 'context_id and language exclude each other.')
  }
  const envs = environment(body.env_vars)
  const context = await contexts.find(contextId, language)
  const left = new AbortController()
  response.once('close', () => left.abort())
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' })
  response.flushHeaders()
  const sink = new LineWriter(response)
  try {
    await context.execute({ code, envs, signal: left.signal }, sink)
    sink.write({ type: 'end_of_execution' })
  } catch (error) {
    // The status is sent: what went wrong is told as an error of the code.
    sink.write(errorEvent('InterpreterError', AppError.from(error).message))
  }
  response.end()
}

/** Events as lines of JSON. */
class LineWriter implements EventSink {
  readonly #response: ServerResponse

  constructor(response: ServerResponse) {
    this.#response = response
  }

  write(event: ExecutionEvent): boolean {
    // To who has left, all is written at once.
    if (this.#response.destroyed) return true
    return this.#response.write(`${JSON.stringify(event)}\n`)
  }

  onceReady(ready: () => void): void {
    const response = this.#response
    const proceed = (): void => {
      response.off('drain', proceed).off('close', proceed)
      ready()
    }
    response.on('drain', proceed).on('close', proceed)
  }
}

function optionalText(body: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = body[name]
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value
  throw new AppError('invalid_request', `${name} must be a text.`)
}

function environment(value: unknown): Readonly<Record<string, string>> {
  if (value === undefined || value === null) return {}
  const envs: Record<string, string> = {}
  for (const [name, text] of Object.entries(parsedMap(value))) {
    const isUsable = /^[^=\0]+$/.test(name) && typeof text === 'string' && !text.includes('\0')
    if (!isUsable) throw new AppError('invalid_request', 'env_vars must map variable names to texts.')
    envs[name] = String(text)
  }
  return envs
}

function parsedMap(value: unknown): object {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  throw new AppError('invalid_request', 'env_vars must map variable names to texts.')
}
