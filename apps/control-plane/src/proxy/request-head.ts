import type { IncomingMessage } from 'node:http'
import type { Destination } from './destination.js'
import { headersForService } from './headers.js'

/**
 * The head of a request as it goes to a service. Node's parser has let no control characters into what is put together here.
 * @param connection lines about the connection, with their ends
 */
export function requestHead(request: IncomingMessage, { path, withheld }: Destination, connection: string): string {
  const headers = headersForService(request, withheld)
  let head = `${request.method} ${path} HTTP/1.1\r\n`
  for (let at = 0; at + 1 < headers.length; at += 2) head += `${headers[at]}: ${headers[at + 1]}\r\n`
  return `${head}${connection}\r\n`
}
