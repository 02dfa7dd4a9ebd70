import { parseImageReference } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { failure } from './registry.js'

function told(image: string, words: string, password?: string) {
  const reference = parseImageReference(image)
  if (reference === undefined) throw new Error(`${image} is no reference`)
  const login = password === undefined ? undefined : { username: 'user', password }
  return failure(reference, login, `time="2026-01-01" level=fatal msg="${words}"\n`)
}

describe('what skopeo says at its end', () => {
  it.each([
    ['reading manifest 1 in h.example/a: manifest unknown', 'image_not_found'],
    ['reading manifest 1 in h.example/a: unauthorized: authentication required', 'image_not_found'],
    [
      'pinging container registry h.example: tls: failed to verify certificate: x509: unknown authority',
      'registry_refused',
    ],
    ['writing blob: open /work/layout/blobs: no space left on device', 'disk_full'],
    ['reading blob: connection reset by peer', 'registry_unavailable'],
  ])('%s: %s', (words, code) => {
    expect(told('h.example/a:1', words)).toMatchObject({ code })
  })

  it.each([
    ['h.example/denied/not-found:unauthorized', 'reading manifest unauthorized in h.example/denied/not-found: EOF'],
    ['h.example/denied:1', 'initializing source docker://h.example/denied:1: EOF'],
    ['h.example/a:denied', 'initializing source docker://h.example/a:denied: EOF'],
    ['h.example/certificate:1', 'Get \\"https://h.example/v2/certificate/manifests/1\\": EOF'],
  ])('does not mean what the image is called: %s', (image, words) => {
    expect(told(image, words)).toMatchObject({ code: 'registry_unavailable' })
  })

  it('is of a limit when its runtime ended it', () => {
    const reference = parseImageReference('h.example/a')
    const words = 'SIGXFSZ: file size limit exceeded\nPC=0x1\n\ngoroutine 1 [syscall]:\nrip 0x2\n'
    const error = reference && failure(reference, undefined, words)
    expect(error).toMatchObject({ code: 'image_not_usable', message: expect.stringContaining('WRENN_IMAGE_MAX_MIB') })
  })

  it('has no password in it', () => {
    const { message } = told('h.example/a', 'reading blob: user:s3cret@h.example: EOF', 's3cret')
    expect(message).toContain('user:…@h.example')
  })
})
