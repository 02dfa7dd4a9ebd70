import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { clientIpOf } from './client-ip.js'

function request(remoteAddress: string, forwardedFor?: string): IncomingMessage {
  const socket = new Socket()
  Object.defineProperty(socket, 'remoteAddress', { value: remoteAddress })
  const message = new IncomingMessage(socket)
  if (forwardedFor !== undefined) message.headers['x-forwarded-for'] = forwardedFor
  return message
}

describe('where a request to a port comes from', () => {
  it.each([
    ['its own address where nobody is trusted', [], '198.51.100.7', '203.0.113.9', '198.51.100.7'],
    ['what a trusted proxy says', ['127.0.0.1'], '127.0.0.1', '203.0.113.9', '203.0.113.9'],
    [
      'the last one that no trusted proxy has',
      ['10.0.0.0/8'],
      '10.0.0.1',
      '192.0.2.1, 203.0.113.9, 10.0.0.2',
      '203.0.113.9',
    ],
    ['its own address where it is no proxy', ['10.0.0.0/8'], '198.51.100.7', '203.0.113.9', '198.51.100.7'],
    ['the proxy where it says nothing', ['127.0.0.1'], '127.0.0.1', undefined, '127.0.0.1'],
  ])('is %s', (_, trusted, address, forwardedFor, ip) => {
    expect(clientIpOf(trusted)(request(address, forwardedFor))).toBe(ip)
  })
})
