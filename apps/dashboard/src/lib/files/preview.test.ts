import type { Files, OpenFile } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { lookAt, MAX_IMAGE_BYTES, MAX_TEXT_BYTES } from './preview.js'

const never = new AbortController().signal
const CHUNK_BYTES = 64 * 1024

interface Served extends Pick<Files, 'open'> {
  sentBytes: number
  isCancelled: boolean
}

/** A file of so many bytes; versions are what it has when it is opened for the first time, the second time, … */
function serve(sizeBytes: number, versions: readonly (string | undefined)[] = ['"1"'], fill = 'x'): Served {
  let opened = 0
  const served: Served = {
    sentBytes: 0,
    isCancelled: false,
    open: async (): Promise<OpenFile> => {
      let left = sizeBytes
      const stream = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          const size = Math.min(left, CHUNK_BYTES)
          left -= size
          served.sentBytes += size
          if (size > 0) controller.enqueue(new Uint8Array(Buffer.alloc(size, fill)))
          else controller.close()
        },
        cancel: () => {
          served.isCancelled = true
        },
      })
      return { stream, sizeBytes, version: versions[Math.min(opened++, versions.length - 1)] }
    },
  }
  return served
}

const look = async (files: Pick<Files, 'open'>, name = 'a.txt') =>
  await lookAt(files, { path: `/${name}`, name }, never)

describe('a preview', () => {
  it('of a text has all of it, up to its limit', async () => {
    const preview = await look(serve(MAX_TEXT_BYTES))
    expect(preview).toMatchObject({ kind: 'text', isCut: false, version: '"1"' })
    expect(preview.kind === 'text' && preview.file.text.length).toBe(MAX_TEXT_BYTES)
    expect(await look(serve(0))).toMatchObject({ kind: 'text', isCut: false, file: { text: '' } })
  })

  it('of one byte more is known to be cut, and reads no further', async () => {
    expect(await look(serve(MAX_TEXT_BYTES + 1))).toMatchObject({ kind: 'text', isCut: true })
    const endless = serve(2 ** 40)
    const preview = await look(endless)
    expect(preview.kind === 'text' && preview.file.text.length).toBe(MAX_TEXT_BYTES)
    expect([endless.isCancelled, endless.sentBytes <= MAX_TEXT_BYTES + 3 * CHUNK_BYTES]).toEqual([true, true])
  })

  it('of a picture is bounded by what arrives', async () => {
    const small = await look(serve(10), 'a.png')
    expect(small.kind === 'image' && [small.blob.size, small.blob.type]).toEqual([10, 'image/png'])
    const large = serve(2 ** 40)
    expect(await look(large, 'a.png')).toEqual({ kind: 'large-image' })
    expect(large.sentBytes).toBeLessThanOrEqual(MAX_IMAGE_BYTES + 3 * CHUNK_BYTES)
  })

  it('of a file that was changed just now waits for its version; what never has one is shown as well', async () => {
    expect(await look(serve(3, [undefined, '"2"']))).toMatchObject({ kind: 'text', version: '"2"' })
    expect(await look(serve(3, [undefined]))).toMatchObject({ kind: 'text', version: undefined })
  })

  it('of other bytes says so', async () => {
    expect(await look(serve(3, ['"1"'], '\0'))).toEqual({ kind: 'other' })
  })
})
