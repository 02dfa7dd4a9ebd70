import { createHash } from 'node:crypto'
import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Recipe } from '@wrenn/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { aloneFileOf, recipeOfFile, withImageFiles } from './image-file.js'

let dir: string
let file: string
const content = 'x'.repeat(600_000)
const hash = createHash('sha256').update(content).digest('hex')
const recipe: Recipe = {
  stages: [
    { from: 'base', steps: [] },
    { from: 'app', steps: [] },
  ],
  uploads: [],
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-test-image-file-'))
  file = join(dir, 'app.tar')
  await writeFile(file, content)
})
afterAll(async () => await rm(dir, { recursive: true, force: true }))

describe('a file of an image', () => {
  it('is the whole recipe where it has no name', async () => {
    expect(aloneFileOf({ imageFile: [file] })).toBe(file)
    expect(aloneFileOf({ imageFile: ['./a=b.tar'] })).toBe('./a=b.tar')
    const made = await recipeOfFile(file, 'app:2')
    expect(made.stages).toEqual([{ from: 'app.tar', steps: [] }])
    expect(made.imageFiles).toEqual({ 'app.tar': { hash, image: 'app:2' } })
    const [upload] = made.uploads
    expect(upload && (await new Response(upload.open()).text())).toBe(content)
  })

  it('is what stages of its name begin with', async () => {
    expect(aloneFileOf({ imageFile: [`app=${file}`] })).toBeUndefined()
    const made = await withImageFiles(recipe, { imageFile: [`app=${file}`, `base=${file}`] })
    expect(made.imageFiles).toEqual({ app: { hash }, base: { hash } })
    expect(made.uploads).toHaveLength(1)
    const from = 'ghcr.io:443/a/b:1'
    const image: Recipe = { stages: [{ from, steps: [] }], uploads: [] }
    expect((await withImageFiles(image, { imageFile: [`${from}=${file}`] })).imageFiles).toEqual({ [from]: { hash } })
    expect(aloneFileOf({ imageFile: [`${dir}/a=b.tar`] })).toBe(`${dir}/a=b.tar`)
  })

  it('is refused where nothing begins with it, or nobody knows what it is for', async () => {
    await expect(withImageFiles(recipe, { imageFile: [`other=${file}`] })).rejects.toThrow(
      'no stage that is built is FROM other',
    )
    expect(() => aloneFileOf({ imageFile: ['a.tar', 'b.tar'] })).toThrow('several need names')
    expect(() => aloneFileOf({ imageFile: [], image: 'app' })).toThrow('--image chooses from one --image-file')
    await expect(recipeOfFile(join(dir, 'none.tar'), undefined)).rejects.toThrow('none.tar cannot be read (ENOENT)')
    await expect(recipeOfFile(dir, undefined)).rejects.toThrow('is no file')
  })

  it('that changes while it is sent is not sent to its end', async () => {
    const changing = join(dir, 'changing.tar')
    await writeFile(changing, content)
    const [upload] = (await recipeOfFile(changing, undefined)).uploads
    await appendFile(changing, 'more')
    const sent = upload === undefined ? '' : new Response(upload.open()).text()
    await expect(sent).rejects.toThrow('changed while it was read')
  })
})
