import { createHash } from 'node:crypto'
import { templateLabel, templateSeal } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { lookAt, nameFor, recipeOf } from './template-file.js'

/** More than is read at once. */
const body = new Uint8Array(3 * 1024 * 1024).map((_, at) => at % 251)
const sha256 = (...parts: readonly Uint8Array[]) => {
  const sum = createHash('sha256')
  for (const part of parts) sum.update(part)
  return sum.digest()
}
const label = new Uint8Array(templateLabel('web'))
const seal = new Uint8Array(templateSeal(sha256(body, label)))
const exported = (name = 'web.wrenn') => new File([body, label, seal], name)
const reading = () => {
  let bytes = 0
  const options = { signal: new AbortController().signal, onRead: (more: number) => (bytes += more) }
  return { options, read: () => bytes }
}
const withHead = (name: string, at: number, ...bytes: readonly number[]) =>
  new File([new Uint8Array(at), new Uint8Array(bytes), new Uint8Array(1000)], name)

describe('a file that is to be a template', () => {
  it('is known by what it has, not by how it is called', async () => {
    expect(await lookAt(exported('other.tar'))).toMatchObject({ kind: 'template', name: 'web' })
    const images = [
      withHead('a', 0, 0x1f, 0x8b),
      withHead('b', 0, 0x28, 0xb5, 0x2f, 0xfd),
      withHead('c', 0, 0xfd, 0x37, 0x7a, 0x58, 0x5a, 0),
      withHead('d', 257, ...new TextEncoder().encode('ustar')),
    ]
    const found = await Promise.all(images.map(lookAt))
    expect(found.map((each) => each.kind === 'image' && each.packing)).toEqual(['gzip', 'zstd', 'xz', 'tar'])
  })

  it('is refused before it is sent when it is something else, or was cut', async () => {
    await expect(lookAt(new File(['hello'], 'notes.txt'))).rejects.toThrow('neither an image nor an export')
    await expect(lookAt(new File([], 'empty.tar'))).rejects.toThrow('neither an image nor an export')
    await expect(lookAt(new File([body, label], 'web.wrenn'))).rejects.toThrow('its end is missing')
  })

  it('is read once for the digest that it is called by, and sent as it is', async () => {
    const file = exported()
    const { options, read } = reading()
    const recipe = await recipeOf(file, await lookAt(file), options)
    const hash = sha256(body, label, seal).toString('hex')
    expect(recipe).toMatchObject({ stages: [{ from: 'web.wrenn' }], imageFiles: { 'web.wrenn': { hash } } })
    expect(recipe.uploads[0]?.open()).toBe(file)
    expect(read()).toBe(file.size)
  })

  it('says which of its images is meant', async () => {
    const file = withHead('app.tar.gz', 0, 0x1f, 0x8b)
    const recipe = await recipeOf(file, await lookAt(file), { ...reading().options, image: 'app:2' })
    expect(recipe.imageFiles?.['app.tar.gz']?.image).toBe('app:2')
  })

  it('is refused when a byte of an export is not as it was', async () => {
    const flipped = new Uint8Array(body)
    flipped[2_000_000] = 1
    const file = new File([flipped, label, seal], 'web.wrenn')
    await expect(recipeOf(file, await lookAt(file), reading().options)).rejects.toThrow('web.wrenn is damaged')
  })

  it('is not read on when its reader gives up', async () => {
    const file = exported()
    const found = await lookAt(file)
    const gone = new AbortController()
    let bytes = 0
    const onRead = (more: number) => {
      bytes += more
      gone.abort(new Error('enough'))
    }
    await expect(recipeOf(file, found, { signal: gone.signal, onRead })).rejects.toThrow('enough')
    expect(bytes).toBeLessThan(file.size)
  })

  it('that changed meanwhile is said', async () => {
    const file = exported()
    const found = await lookAt(file)
    file.slice = () => {
      throw new DOMException('gone', 'NotReadableError')
    }
    await expect(recipeOf(file, found, reading().options)).rejects.toMatchObject({ code: 'file_not_found' })
  })

  it('has a name that a template may have', () => {
    const image = { kind: 'image', packing: 'tar' } as const
    const names = ['app.tar.gz', 'my app (2).tar', '_x.oci.tar', 'app.wrenn', 'v1.2.tar.zst', 'ü.tar']
    expect(names.map((name) => nameFor({ name }, image))).toEqual(['app', 'my-app-2-', 'x', 'app', 'v1.2', ''])
    const template = { kind: 'template', name: 'web', digest: new Uint8Array(32) } as const
    expect(nameFor({ name: 'x.wrenn' }, template)).toBe('web')
  })
})
