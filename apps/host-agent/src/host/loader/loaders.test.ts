import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { identify, silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Loaders } from './loaders.js'
import { LOADER_FILES, type LoaderOrder } from './order.js'

const order: LoaderOrder = {
  store: {
    bucket: 'b',
    prefix: '',
    region: 'r',
    accessKeyId: 'a',
    secretAccessKey: 'secret of the store',
    forcePathStyle: true,
  },
  ...{ team: 'team-1', key: 'secret of the team', stateId: 'state-1', giveUpMs: 1 },
}

describe('memory that is loaded', () => {
  let dir: string
  let loaders: Loaders
  const at = (name: string) => join(dir, name)

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-loaders-'))
    loaders = new Loaders({ program: at('program.mjs'), poolPath: dir, logger: silentLogger })
  })
  afterEach(async () => {
    await rm(dir, { recursive: true })
  })

  it('is sparse, has two names, and counts for nothing before it is served', async () => {
    expect(await loaders.status(dir)).toBe('plain')
    await loaders.prepare(dir, 2 ** 30)
    const [one, two] = [await stat(at(LOADER_FILES.memory)), await stat(at(LOADER_FILES.real))]
    expect([one.size, one.blocks, one.ino]).toEqual([2 ** 30, 0, two.ino])
    expect(await loaders.status(dir)).toBe('broken')
  })

  it('is worth as much as the process that its mark names', async () => {
    await loaders.prepare(dir, 4096)
    const own = await identify(process.pid)
    await writeFile(at(LOADER_FILES.mark), JSON.stringify(own))
    expect(await loaders.status(dir)).toBe('loading')
    await writeFile(at(LOADER_FILES.whole), '')
    expect(await loaders.status(dir)).toBe('whole')
    await writeFile(at(LOADER_FILES.mark), JSON.stringify({ ...own, startTicks: '1' }))
    await writeFile(at(LOADER_FILES.failed), 'A chunk is damaged.')
    await expect(loaders.whole(dir, new AbortController().signal)).rejects.toMatchObject({
      code: 'snapshot_damaged',
      message: 'A chunk is damaged.',
    })
  })

  it('is a file like any other only when its loader has written what it was at', async () => {
    const late = `console.log('up'); setTimeout(() => require('node:fs').writeFileSync(process.argv[1], 'noted'), 200)`
    const child = spawn(process.execPath, ['-e', late, at(LOADER_FILES.workingSet)])
    await once(child.stdout, 'data')
    await loaders.prepare(dir, 4096)
    await writeFile(at(LOADER_FILES.mark), JSON.stringify(await identify(child.pid ?? 0)))
    await writeFile(at(LOADER_FILES.whole), '')
    await loaders.finish(dir, new AbortController().signal)
    expect(await readFile(at(LOADER_FILES.workingSet), 'utf8')).toBe('noted')
    expect((await readdir(dir)).sort()).toEqual([LOADER_FILES.memory, LOADER_FILES.workingSet])
    expect(await loaders.status(dir)).toBe('plain')
  })

  it('says the last words of what could not begin, which got its keys by no argument and no environment', async () => {
    const program = `import { readFileSync } from 'node:fs'
      const seen = ['cmdline', 'environ'].map((name) => readFileSync('/proc/self/' + name, 'utf8')).join()
      const told = readFileSync(0, 'utf8')
      process.stderr.write('given ' + /secret/.test(told) + ', shown ' + /secret/.test(seen))
      process.exit(3)`
    await writeFile(at('program.mjs'), program)
    await loaders.prepare(dir, 4096)
    await expect(loaders.start(dir, order)).rejects.toMatchObject({
      code: 'engine_failure',
      message: 'The memory loader cannot be started: it ended with 3: given true, shown false',
    })
    expect(await readFile(at(LOADER_FILES.mark), 'utf8')).toBe('{}')
  })
})
