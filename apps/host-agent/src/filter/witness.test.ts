import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { Witness } from './witness.js'

/** What it is told of these pieces; they come out as they went in. */
async function witnessed(...pieces: readonly string[]): Promise<readonly string[]> {
  const names: string[] = []
  const witness = new Witness((name) => names.push(name))
  const out: Buffer[] = []
  witness.on('data', (chunk: Buffer) => out.push(chunk))
  for (const piece of pieces) witness.write(Buffer.from(piece, 'latin1'))
  witness.end()
  await once(witness, 'end')
  expect(Buffer.concat(out).toString('latin1')).toBe(pieces.join(''))
  return names
}
const get = (host: string, more = ''): string => `GET / HTTP/1.1\r\nHost: ${host}\r\n${more}\r\n`

describe('a witness of what a client says', () => {
  it('tells the host of each request, however it comes', async () => {
    expect(await witnessed(get('a.example'), get('b.example'))).toEqual(['a.example', 'b.example'])
    expect(await witnessed(...get('a.example').split(''))).toEqual(['a.example'])
    const body = get('a.example', 'Content-Length: 4\r\n')
    expect(await witnessed(`${body}GET `, get('b.example'))).toEqual(['a.example', 'b.example'])
  })

  it('tells no name of what says none, and passes it on', async () => {
    expect(await witnessed('SSH-2.0-OpenSSH_9.2\r\n', '\x00\x01\x02\r\n\r\n')).toEqual([])
    expect(await witnessed('\x16\x03\x01\x00\x02ab', 'more')).toEqual([])
    expect(await witnessed('\x00\x01', 'GET / HTTP/1.1\r\nHost: a.example\r\n\r\n')).toEqual([])
    expect(await witnessed(get('192.0.2.1'))).toEqual([])
    expect(await witnessed()).toEqual([])
  })

  it('stops looking at what can be read in two ways, and behind an upgrade', async () => {
    expect(await witnessed(get('a.example'), 'nonsense\r\n\r\n', get('b.example'))).toEqual(['a.example'])
    expect(await witnessed(get('a.example', 'Upgrade: websocket\r\n'), get('b.example'))).toEqual(['a.example'])
  })
})
