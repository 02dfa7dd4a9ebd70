import { readDockerfile } from '@wrenn/sdk/dockerfile'
import { unpackTar } from 'modern-tar'
import { describe, expect, it } from 'vitest'
import { contextFiles, FileContext } from './file-context.js'

const dropped = (...paths: readonly string[]) => paths.map((path) => ({ path, file: new File([`of ${path}`], path) }))
const contextOf = (paths: readonly string[], patterns: readonly string[] = []) =>
  new FileContext(contextFiles(dropped(...paths)).files, patterns)

describe('files that were dropped', () => {
  it('are the context, or their only folder is', () => {
    const folder = contextFiles(dropped('app/Dockerfile', 'app/src/a.c', 'app/.dockerignore', 'app/src/.DS_Store'))
    expect([...folder.files.keys()]).toEqual(['Dockerfile', 'src/a.c', '.dockerignore'])
    expect([folder.dockerfile?.name, folder.ignored?.name]).toEqual(['app/Dockerfile', 'app/.dockerignore'])
    const beside = contextFiles(dropped('app/a.c', 'lib/b.c'))
    expect([...beside.files.keys()]).toEqual(['app/a.c', 'lib/b.c'])
    expect(contextFiles(dropped('a.c', 'b.c')).dockerfile).toBe(undefined)
    expect(contextFiles([]).files.size).toBe(0)
  })

  it('are left out by a .dockerignore, with folders for what stays', async () => {
    const context = contextOf(['a.c', 'out/x/b.o', 'out/x/keep', 'Lib/c.c'], ['out', '!out/x/keep', 'lib'])
    expect((await context.entries()).map(({ path, type }) => [path, type])).toEqual([
      ['Lib', 'directory'],
      ['Lib/c.c', 'file'],
      ['a.c', 'file'],
      ['out', 'directory'],
      ['out/x', 'directory'],
      ['out/x/keep', 'file'],
    ])
    expect(await context.sum()).toEqual({ count: 3, sizeBytes: 'of Lib/c.cof a.cof out/x/keep'.length })
  })

  it('are packed as a Dockerfile copies them, also with long names', async () => {
    const long = `${'deep/'.repeat(40)}file`
    const context = contextOf(['a.c', 'src/run', `src/${long}`])
    const text = 'FROM base\nCOPY src/ /app/\nCOPY <<x /etc/x\nhello\nx\n'
    const { uploads } = await readDockerfile(text, { context })
    const [files, texts] = await Promise.all(
      uploads.map(async ({ open }) => await unpackTar(await new Response(open()).arrayBuffer())),
    )
    const told = files?.map(({ header, data }) => [header.name, header.mode, new TextDecoder().decode(data)])
    expect(told).toContainEqual(['run', 0o755, 'of src/run'])
    expect(told).toContainEqual([long, 0o755, `of src/${long}`])
    expect(told).toContainEqual(['deep/', 0o755, ''])
    expect(texts?.map(({ header, data }) => [header.name, new TextDecoder().decode(data)])).toEqual([['x', 'hello\n']])
  })

  it('that changed meanwhile are said', async () => {
    class Torn extends File {
      override arrayBuffer(): Promise<ArrayBuffer> {
        return Promise.reject(new DOMException('gone', 'NotReadableError'))
      }
      override stream(): ReturnType<File['stream']> {
        return new ReadableStream({ start: (controller) => controller.error(new Error('gone')) })
      }
    }
    const context = new FileContext(new Map([['a.c', new Torn(['x'], 'a.c')]]))
    await expect(context.digest('a.c')).rejects.toThrow('a.c cannot be read any more')
    const packed = context.archive([{ as: 'a.c', entry: { path: 'a.c', type: 'file', mode: 0o755 } }])
    await expect(new Response(packed).arrayBuffer()).rejects.toThrow('a.c cannot be read any more')
  })
})
