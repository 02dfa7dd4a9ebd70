import { pathBytes } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { rawArguments } from './raw-arguments.js'

describe('arguments that are not UTF-8', () => {
  it('come as text that leads back to their bytes', () => {
    const raw = Buffer.concat([
      Buffer.from('node\0--title=x\0wrenn.mjs\0cp\0caf'),
      Buffer.from([0xe9, 0xfe, 0]),
      Buffer.from('ü\0'),
    ])
    const words = rawArguments(['cp', 'caf\ufffd\ufffd', 'ü'], () => raw)
    expect([words[0], words[2]]).toEqual(['cp', 'ü'])
    expect([...pathBytes(words[1] ?? '')]).toEqual([0x63, 0x61, 0x66, 0xe9, 0xfe])
  })

  it('stay as they are where nothing tells their bytes', () => {
    expect(rawArguments(['caf\ufffd'], () => undefined)).toEqual(['caf\ufffd'])
    expect(rawArguments(['plain'], () => Buffer.from('other\0'))).toEqual(['plain'])
  })
})
