import { loadConfig } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { objectStoreConfig, objectStoreFields } from './config.js'

const keys = { WRENN_OBJECT_STORE_ACCESS_KEY: 'key', WRENN_OBJECT_STORE_SECRET_KEY: 'not a secret' }
const read = (env: Readonly<Record<string, string>>) => objectStoreConfig(loadConfig(z.object(objectStoreFields), env))

describe('the settings of the object store', () => {
  it('name none at first, whatever else is set', () => {
    expect(read({})).toBeUndefined()
    expect(read({ ...keys, WRENN_OBJECT_STORE: '' })).toBeUndefined()
  })

  it('name a bucket at Amazon, or one of a server, whose buckets are parts of the path', () => {
    expect(read({ ...keys, WRENN_OBJECT_STORE: 's3://states' })).toEqual({
      bucket: 'states',
      prefix: '',
      endpoint: undefined,
      region: 'us-east-1',
      accessKeyId: 'key',
      secretAccessKey: 'not a secret',
      forcePathStyle: false,
    })
    const ofServer = {
      ...keys,
      WRENN_OBJECT_STORE: ' s3://my.states/of/wrenn-1/ ',
      WRENN_OBJECT_STORE_ENDPOINT: 'http://10.1.2.3:7480',
      WRENN_OBJECT_STORE_REGION: 'eu-central-1',
    }
    const expected = { bucket: 'my.states', prefix: 'of/wrenn-1/', region: 'eu-central-1', forcePathStyle: true }
    expect(read(ofServer)).toMatchObject(expected)
    expect(read({ ...ofServer, WRENN_OBJECT_STORE_PATH_STYLE: '0' })?.forcePathStyle).toBe(false)
  })

  it.each([
    ['no scheme', 'states'],
    ['another scheme', 'https://states.example/x'],
    ['no bucket', 's3://'],
    ['a bucket that no server has', 's3://States_1'],
    ['dots that a server might resolve', 's3://states/../other'],
    ['an empty segment', 's3://states/a//b'],
    ['letters that are written in more than one way', 's3://states/é'],
    ['a prefix longer than keys may be', `s3://states/${'a'.repeat(600)}`],
  ])('refuse a place with %s', (_, WRENN_OBJECT_STORE) => {
    expect(() => read({ ...keys, WRENN_OBJECT_STORE })).toThrow(/WRENN_OBJECT_STORE: must be s3:\/\//)
  })

  it.each(['10.1.2.3:7480', 'ftp://store.example', 'http://store.example/s3', 'http://key:secret@store.example'])(
    'refuse %s for an endpoint',
    (WRENN_OBJECT_STORE_ENDPOINT) => {
      expect(() => read({ ...keys, WRENN_OBJECT_STORE: 's3://states', WRENN_OBJECT_STORE_ENDPOINT })).toThrow(
        /WRENN_OBJECT_STORE_ENDPOINT: must be http/,
      )
    },
  )

  it.each(['WRENN_OBJECT_STORE_ACCESS_KEY', 'WRENN_OBJECT_STORE_SECRET_KEY'])('say that %s is missing', (name) => {
    expect(() => read({ ...keys, WRENN_OBJECT_STORE: 's3://states', [name]: '' })).toThrow(`${name} is not: set both`)
  })
})
