import { describe, expect, it } from 'vitest'
import { readAnswerHead } from './answer-head.js'

const read = (fields: string, method = 'GET', status = '200 OK') =>
  readAnswerHead(`HTTP/1.1 ${status}\r\n${fields}`, method)

describe('the head of an answer', () => {
  it('tells what follows it, and whether the connection is kept', () => {
    expect(read('Content-Length: 5\r\nX-A:\t b \xa0\t\r\n')).toEqual({
      status: 200,
      message: 'OK',
      rawHeaders: ['Content-Length', '5', 'X-A', 'b \xa0'],
      body: 5,
      isKept: true,
    })
    expect(read('TRANSFER-ENCODING: Chunked\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n')).toMatchObject({
      body: 'chunked',
      isKept: true,
    })
    for (const last of ['Connection: close', 'connection: x, CLOSE', 'Keep-Alive: timeout=1']) {
      expect(read(`Content-Length: 0\r\n${last}\r\n`)).toMatchObject({ body: 0, isKept: false })
    }
    expect(read('', 'GET', '204')).toMatchObject({ message: '', body: 0 })
    expect(read('Content-Length: 9\r\n', 'GET', '304 Not Modified')).toMatchObject({ body: 0 })
    expect(read('Transfer-Encoding: chunked\r\n', 'HEAD')).toMatchObject({ body: 0 })
  })

  it.each([
    ['two lengths', 'Content-Length: 5\r\nContent-Length: 5\r\n'],
    ['a list of lengths', 'Content-Length: 5, 5\r\n'],
    ['a length beside chunks', 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n'],
    ['chunks beside a length', 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n'],
    ['chunks twice', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n'],
    ['another coding', 'Transfer-Encoding: gzip, chunked\r\n'],
    ['a signed length', 'Content-Length: +5\r\n'],
    ['a length below nothing', 'Content-Length: -5\r\n'],
    ['no end but that of the connection', 'X-A: b\r\n'],
    ['a folded line', 'Content-Length: 5\r\nX-A: b\r\n c\r\n'],
    ['a bare line feed', 'Content-Length: 5\nX-A: b\r\n'],
    ['a bare carriage return', 'Content-Length: 5\r\nX-A: b\rc\r\n'],
    ['white space before a colon', 'Content-Length : 5\r\n'],
    ['a line without a name', 'Content-Length: 5\r\n: b\r\n'],
    ['a zero byte', 'Content-Length: 5\r\nX-A: \0\r\n'],
  ])('is left to Node with %s', (_name, fields) => {
    expect(read(fields)).toBeUndefined()
  })

  it.each([
    'HTTP/1.0 200 OK',
    'HTTP/1.1 100 Continue',
    'HTTP/1.1 101 S',
    'HTTP/1.1 099 Odd',
    'HTTP/1.1 2000 OK',
    'SSH-2.0',
    'http/1.1 200 OK',
    'HTTP/1.1  200 OK',
    'HTTP/1.1 200 O\x01K',
  ])('is left to Node with the first line %j', (line) => {
    expect(readAnswerHead(`${line}\r\nContent-Length: 5\r\n`, 'GET')).toBeUndefined()
  })

  it('takes time in proportion to its length', () => {
    const spaces = ' '.repeat(16_000)
    expect(read(`X-A:${spaces}\n\r\n`)).toBeUndefined()
    expect(read(`Content-Length: 5\r\nX-A:${spaces}b${spaces}\r\n`)?.rawHeaders[3]).toBe('b')
  })
})
