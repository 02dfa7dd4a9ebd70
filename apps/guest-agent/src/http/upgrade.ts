import type { Duplex } from 'node:stream'
import type { AppError } from '@wrenn/base'
import { ERROR_CODE_HEADER, errorKind } from '@wrenn/protocol'

/** Answers a wish for another protocol on a connection that Node has given away, and ends it. */
export function refuseUpgrade(client: Duplex, error: AppError): void {
  const { status } = errorKind(error.code)
  const body = JSON.stringify({ code: status, message: error.message })
  const head = [
    `HTTP/1.1 ${status} Refused`,
    'Connection: close',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `${ERROR_CODE_HEADER}: ${error.code}`,
  ]
  client.end(`${head.join('\r\n')}\r\n\r\n${body}`)
}
