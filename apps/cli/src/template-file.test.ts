import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openTemplateFile, saveTemplate } from './template-file.js'

/** A frame that zstd skips. */
function frame(magic: number, content: Buffer): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32LE(magic)
  head.writeUInt32LE(content.length, 4)
  return Buffer.concat([head, content])
}

let dir: string
const inside = Buffer.from('a template '.repeat(50_000))
const label = JSON.stringify({ format: 'wrenn-template', version: 1, name: 'web' })
const labelled = Buffer.concat([inside, frame(0x184d2a5d, Buffer.from(label.padEnd(1024)))])
const archive = Buffer.concat([labelled, frame(0x184d2a5e, createHash('sha256').update(labelled).digest())])

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-template-file-'))
})
afterAll(async () => await rm(dir, { recursive: true, force: true }))

const streamOf = (bytes: Buffer) => new Blob([new Uint8Array(bytes)]).stream()

describe('an archive of a template', () => {
  it('is a file when it is whole, and nothing otherwise', async () => {
    const path = join(dir, 'web.wrenn')
    const seen: number[] = []
    expect(await saveTemplate(streamOf(archive), path, (bytes) => seen.push(bytes))).toBe(archive.length)
    expect(seen.at(-1)).toBe(archive.length)
    expect((await readFile(path)).equals(archive)).toBe(true)
    for (const cut of [archive.subarray(0, -1), archive.subarray(1), Buffer.alloc(0), inside]) {
      await expect(saveTemplate(streamOf(cut), join(dir, 'cut.wrenn'), () => {})).rejects.toMatchObject({
        code: 'copy_incomplete',
      })
    }
    const failing = new ReadableStream({ pull: (controller) => controller.error(new Error('cut off')) })
    await expect(saveTemplate(failing, join(dir, 'cut.wrenn'), () => {})).rejects.toThrow('cut off')
    await expect(saveTemplate(streamOf(archive), join(dir, 'none/web'), () => {})).rejects.toThrow('cannot be written')
    expect(await readdir(dir)).toEqual(['web.wrenn'])
  })

  it('says how it was called, and is sent by the digest of all its bytes', async () => {
    const path = join(dir, 'read.wrenn')
    await writeFile(path, archive)
    const { name, sizeBytes, upload } = await openTemplateFile(path)
    expect([name, sizeBytes]).toEqual(['web', archive.length])
    expect(upload.hash).toBe(createHash('sha256').update(archive).digest('hex'))
    expect(await new Response(upload.open()).text()).toBe(archive.toString())
  })

  it('is refused with any byte of it flipped', async () => {
    const path = join(dir, 'damaged.wrenn')
    for (const at of [0, 100_000, inside.length + 20, inside.length + 900, archive.length - 45, archive.length - 1]) {
      const damaged = Buffer.from(archive)
      damaged[at] = (damaged[at] ?? 0) ^ 1
      await writeFile(path, damaged)
      await expect(openTemplateFile(path), String(at)).rejects.toMatchObject({ code: 'invalid_request' })
    }
    await expect(openTemplateFile(join(dir, 'nothing'))).rejects.toThrow('cannot be read (ENOENT)')
  })
})
