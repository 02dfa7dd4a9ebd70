import type { IncomingMessage, ServerResponse } from 'node:http'
import { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind } from '@wrenn/protocol'

/** Answers with a whole JSON document; its length is told, so that a client keeps the connection. */
export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(JSON.stringify(value))
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': body.length }).end(body)
}

/** The HTTP routes' error shape, which existing clients compare: `{code: <HTTP status>, message}`. */
export function sendError(response: ServerResponse, thrown: unknown): void {
  const error = AppError.from(thrown)
  if (response.headersSent) {
    // Too late for a status: a cut connection is the only honest sign of an incomplete body.
    response.destroy()
    return
  }
  const { status } = errorKind(error.code)
  response.setHeader(ERROR_CODE_HEADER, error.code)
  sendJson(response, status, { code: status, message: error.message })
}

/** @throws AppError `invalid_request` for text that is not a JSON object; an empty text is an empty one */
export function parseObject(text: string, route: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text === '' ? '{}' : text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return Object.fromEntries(Object.entries(value))
  } catch {
    // Not JSON: the same answer as for JSON that is no object. The parser's message could quote a secret.
  }
  throw new AppError('invalid_request', `The body of ${route} must be a JSON object.`)
}

/** @throws AppError `too_large` */
export async function readText(request: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    chunks.push(chunk)
    length += chunk.length
    if (length > maxBytes) throw new AppError('too_large', `The body may have at most ${maxBytes} bytes.`)
  }
  return Buffer.concat(chunks).toString('utf8')
}
