import { WrennError } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { fileDiff, hasContent } from './file-diff.js'

const points = { from: 'before', to: 'current' }
const never = new AbortController().signal

function capsuleWith(contents: Readonly<Record<string, string | Uint8Array<ArrayBuffer> | Error>>) {
  const asked: string[] = []
  const readAt = async (point: unknown): Promise<Uint8Array<ArrayBuffer>> => {
    asked.push(String(point))
    const content = contents[String(point)]
    if (content instanceof Error) throw content
    return typeof content === 'string' ? new TextEncoder().encode(content) : (content ?? new Uint8Array())
  }
  return { asked, readAt }
}

const diffOf = (contents: Parameters<typeof capsuleWith>[0], change: 'added' | 'changed' | 'removed' = 'changed') =>
  fileDiff(capsuleWith(contents), points, { path: '/a', change }, never)

describe('fileDiff', () => {
  it('compares texts', async () => {
    expect(await diffOf({ before: 'a\n', current: 'b\n' })).toMatchObject({
      kind: 'text',
      diff: { added: 1, removed: 1 },
    })
  })

  it('asks only for the side where the file is', async () => {
    const capsule = capsuleWith({ current: 'a\n' })
    const added = await fileDiff(capsule, points, { path: '/a', change: 'added' }, never)
    expect(added).toMatchObject({ kind: 'text', diff: { added: 1, removed: 0 } })
    expect(capsule.asked).toEqual(['current'])
  })

  it('says of what is no text that it is not, and the same of what is too large', async () => {
    expect(await diffOf({ before: 'a\n', current: new Uint8Array([0]) })).toEqual({ kind: 'binary' })
    const large = new WrennError('It is.', { code: 'too_large' })
    expect(await diffOf({ before: large, current: 'a\n' })).toEqual({ kind: 'too-large' })
  })

  it('says that only the ends of lines are others', async () => {
    expect(await diffOf({ before: 'a\n', current: 'a\r\n' })).toEqual({ kind: 'line-ends' })
  })

  it('shows nothing of an empty file that was made', async () => {
    expect(await diffOf({ current: '' }, 'added')).toMatchObject({ kind: 'text', diff: { lines: [] } })
  })

  it('fails as reading does', async () => {
    const failure = new WrennError('It is gone.', { code: 'file_not_found' })
    await expect(diffOf({ before: failure, current: '' })).rejects.toBe(failure)
  })
})

describe('hasContent', () => {
  it('is so of files whose content differs', () => {
    expect(hasContent({ type: 'file', change: 'added', what: [] })).toBe(true)
    expect(hasContent({ type: 'file', change: 'changed', what: ['content', 'mode'] })).toBe(true)
    expect(hasContent({ type: 'file', change: 'changed', what: ['mode'] })).toBe(false)
    expect(hasContent({ type: 'symlink', change: 'added', what: [] })).toBe(false)
  })
})
