import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { codingError, contentCoding, unpacked } from './content-coding.js'
import { AppError } from './errors.js'

describe('contentCoding', () => {
  it.each([undefined, '', 'identity', 'Identity , identity'])('takes %j for the bytes as they are', (header) => {
    expect(contentCoding(header)).toBe('identity')
  })

  it.each(['gzip', 'GZIP', 'x-gzip', 'identity, gzip'])('takes %j for gzip', (header) => {
    expect(contentCoding(header)).toBe('gzip')
  })

  it.each(['br', 'deflate', 'zstd', 'gzip, gzip', 'gzip, br', 'aes128gcm', 'gzip;q=1'])('refuses %j', (header) => {
    expect(() => contentCoding(header)).toThrow(expect.objectContaining({ code: 'unsupported_media_type' }))
  })
})

describe('unpacked', () => {
  const unpack = async (bytes: Buffer) => await buffer(await unpacked(Readable.from([bytes]), 'gzip'))

  it('gives the bytes of one gzip member or several', async () => {
    expect((await unpack(Buffer.concat([gzipSync('one'), gzipSync(''), gzipSync('two')]))).toString()).toBe('onetwo')
  })

  it.each([
    ['nothing at all', Buffer.alloc(0)],
    ['what is no gzip', Buffer.from('plain')],
    ['a cut member', gzipSync('x'.repeat(1_000)).subarray(0, -4)],
    ['more behind the last member', Buffer.concat([gzipSync('x'), Buffer.from('more')])],
  ])('fails on %s, by the sender', async (_, bytes) => {
    const error = await unpack(bytes).catch(codingError)
    expect(AppError.is(error, 'invalid_request')).toBe(true)
  })

  it('keeps an error for who reads it later', async () => {
    const result = await unpacked(Readable.from([Buffer.from('plain')]), 'gzip')
    await new Promise((resolve) => result.once('close', resolve))
    await expect(buffer(result)).rejects.toMatchObject({ code: 'Z_DATA_ERROR' })
  })

  it('ends when its source is closed before its end', async () => {
    const source = new PassThrough()
    const result = await unpacked(source, 'gzip')
    source.write(gzipSync('x'.repeat(1_000)).subarray(0, 10))
    source.destroy()
    await expect(buffer(result)).rejects.toMatchObject({ code: 'ERR_STREAM_PREMATURE_CLOSE' })
  })
})
