import type { IncomingMessage } from 'node:http'
import { AppError } from '@wrenn/base'

/**
 * Node's parser refuses two lengths, lengths beside chunks, folded lines and bare line feeds. What is left is what it takes and others read in
 * another way: codings below `chunked`, and chunks in HTTP/1.0.
 * @throws AppError `invalid_request`
 */
export function requireFraming({ headers, httpVersion }: IncomingMessage): void {
  const coding = headers['transfer-encoding']
  if (coding === undefined || (coding.trim().toLowerCase() === 'chunked' && httpVersion === '1.1')) return
  throw new AppError('invalid_request', 'Transfer-Encoding must be `chunked`, in HTTP/1.1.')
}

/** Whether a body follows the head. */
export function hasFramedBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** Whether the client waits for `100 Continue`. One of HTTP/1.0 knows no such answer (RFC 9110 §10.1.1). */
export function isExpecting({ headers, httpVersion }: Pick<IncomingMessage, 'headers' | 'httpVersion'>): boolean {
  return headers.expect !== undefined && httpVersion !== '1.0'
}
