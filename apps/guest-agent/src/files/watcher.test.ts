import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { EventType } from '@wrenn/protocol/guest'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from '../testing/eventually.js'
import { DirectoryWatcher, type WatchEvent } from './watcher.js'

const user = { name: 'root', uid: 0, gid: 0, home: '/root', shell: '/bin/sh', groups: [] }

let dir: string
let events: WatchEvent[]
let watcher: DirectoryWatcher | undefined
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'watcher-test-'))
  events = []
})
afterEach(() => {
  watcher?.close()
  rmSync(dir, { recursive: true, force: true })
})

function watch(recursive: boolean, root = dir): void {
  watcher = new DirectoryWatcher(root, { recursive, allowNetworkMounts: false, user }, (event) => events.push(event))
}

const seen = () => events.map(({ name, type }) => `${EventType[type]} ${name}`)

/** The events of all that happened before; a marker file tells that the kernel delivered everything. */
async function settled(): Promise<readonly string[]> {
  const marker = `marker-${events.length}`
  writeFileSync(join(dir, marker), '')
  await eventually('the marker', () => seen().includes(`CREATE ${marker}`))
  return seen().filter((each) => !each.includes('marker-'))
}

describe('DirectoryWatcher', () => {
  it('reports a created, a written, a changed and a removed file', async () => {
    watch(false)
    writeFileSync(join(dir, 'file'), '')
    expect(await settled()).toEqual(['CREATE file'])
    appendFileSync(join(dir, 'file'), 'more')
    expect(await settled()).toEqual(['CREATE file', 'WRITE file'])
    chmodSync(join(dir, 'file'), 0o600)
    expect(await settled()).toEqual(['CREATE file', 'WRITE file', 'CHMOD file'])
    unlinkSync(join(dir, 'file'))
    expect((await settled()).at(-1)).toBe('REMOVE file')
  })

  it('reports a file that was created with content as created and written', async () => {
    watch(true)
    writeFileSync(join(dir, 'file'), 'content')
    const found = await settled()
    expect(found.slice(0, 2)).toEqual(['CREATE file', 'WRITE file'])
  })

  it('reports a rename by both names, in and between watched directories', async () => {
    mkdirSync(join(dir, 'a'))
    mkdirSync(join(dir, 'b'))
    writeFileSync(join(dir, 'a/one'), '1')
    watch(true)
    renameSync(join(dir, 'a/one'), join(dir, 'a/two'))
    expect(await settled()).toEqual(['RENAME a/one', 'CREATE a/two'])
    renameSync(join(dir, 'a/two'), join(dir, 'b/three'))
    const found = await settled()
    expect(found.slice(2).sort()).toEqual(['CREATE b/three', 'RENAME a/two'])
  })

  it('reports what left the directory as removed and what came in as created', async () => {
    const outside = mkdtempSync(join(tmpdir(), 'watcher-test-outside-'))
    writeFileSync(join(dir, 'leaving'), '')
    mkdirSync(join(outside, 'tree/inner'), { recursive: true })
    writeFileSync(join(outside, 'tree/inner/file'), '')
    watch(true)
    renameSync(join(dir, 'leaving'), join(outside, 'left'))
    expect(await settled()).toEqual(['REMOVE leaving'])
    renameSync(join(outside, 'tree'), join(dir, 'tree'))
    expect((await settled()).slice(1)).toEqual(['CREATE tree', 'CREATE tree/inner', 'CREATE tree/inner/file'])
    rmSync(outside, { recursive: true })
  })

  it('follows directories made later, however fast, and their renames', async () => {
    watch(true)
    mkdirSync(join(dir, 'x/y/z'), { recursive: true })
    writeFileSync(join(dir, 'x/y/z/deep'), 'deep')
    const first = await settled()
    expect(first.filter((each) => each.startsWith('CREATE'))).toEqual([
      'CREATE x',
      'CREATE x/y',
      'CREATE x/y/z',
      'CREATE x/y/z/deep',
    ])
    expect(first).toContain('WRITE x/y/z/deep')
    renameSync(join(dir, 'x'), join(dir, 'moved'))
    await settled()
    appendFileSync(join(dir, 'moved/y/z/deep'), 'er')
    expect((await settled()).at(-1)).toBe('WRITE moved/y/z/deep')
    expect(seen().filter((each) => each.startsWith('REMOVE'))).toEqual([])
  })

  it('stays in the directory when it is not recursive', async () => {
    mkdirSync(join(dir, 'sub'))
    watch(false)
    writeFileSync(join(dir, 'sub/inside'), 'x')
    mkdirSync(join(dir, 'later'))
    writeFileSync(join(dir, 'later/inside'), 'x')
    expect(await settled()).toEqual(['CREATE later'])
  })

  it('reports every file of a burst of 2,000 exactly once', async () => {
    watch(true)
    mkdirSync(join(dir, 'burst'))
    for (let i = 0; i < 2_000; i++) writeFileSync(join(dir, `burst/${i}`), 'x')
    await eventually('all files', () => seen().includes('CREATE burst/1999'))
    const created = (await settled()).filter((each) => each.startsWith('CREATE burst/'))
    expect(created.length).toBe(2_000)
    expect(new Set(created).size).toBe(2_000)
    for (let i = 0; i < 2_000; i++) expect(seen()).toContain(`WRITE burst/${i}`)
  })

  it('reports the removal of a whole tree and watches a new one of the same name', async () => {
    mkdirSync(join(dir, 'tree/a/b'), { recursive: true })
    for (const name of ['tree/1', 'tree/a/2', 'tree/a/b/3']) writeFileSync(join(dir, name), 'x')
    watch(true)
    rmSync(join(dir, 'tree'), { recursive: true })
    const removed = (await settled()).filter((each) => each.startsWith('REMOVE'))
    expect(removed).toContain('REMOVE tree')
    expect(removed.length).toBe(new Set(removed).size)
    expect(removed.sort()).toEqual([
      'REMOVE tree',
      'REMOVE tree/1',
      'REMOVE tree/a',
      'REMOVE tree/a/2',
      'REMOVE tree/a/b',
      'REMOVE tree/a/b/3',
    ])
    mkdirSync(join(dir, 'tree'))
    await settled()
    writeFileSync(join(dir, 'tree/new'), '')
    expect((await settled()).at(-1)).toBe('CREATE tree/new')
  })

  it('sees a file replaced in one step as created anew', async () => {
    writeFileSync(join(dir, 'file'), 'old')
    watch(false)
    writeFileSync(join(dir, 'next'), 'new')
    renameSync(join(dir, 'next'), join(dir, 'file'))
    expect(await settled()).toContain('CREATE file')
  })

  it('does not report uploads in progress, nor follow links', async () => {
    const outside = mkdtempSync(join(tmpdir(), 'watcher-test-outside-'))
    watch(true)
    writeFileSync(join(dir, `.upload-${'0'.repeat(18)}`), 'x')
    symlinkSync(outside, join(dir, 'link'))
    writeFileSync(join(outside, 'unseen'), 'x')
    expect(await settled()).toEqual(['CREATE link'])
    rmSync(outside, { recursive: true })
  })

  it('names each file whose name is not UTF-8, also below such a directory', async () => {
    const raw = (name: string) => Buffer.concat([Buffer.from(`${dir}/`), Buffer.from(name, 'latin1')])
    watch(true)
    mkdirSync(raw('\xfd'))
    for (const name of ['\xfe', '\xff', '\xfd/\xe9']) writeFileSync(raw(name), '')
    const created = ['\ufffdfd', '\ufffdfd/\ufffde9', '\ufffdfe', '\ufffdff'].map((name) => `CREATE ${name}`)
    expect([...(await settled())].sort()).toEqual(created)
    renameSync(raw('\xfd/\xe9'), raw('\xfd/\xc3'))
    expect((await settled()).slice(4)).toEqual(['RENAME \ufffdfd/\ufffde9', 'CREATE \ufffdfd/\ufffdc3'])
    watcher?.close()
    events = []
    watch(false, `${dir}/\ufffdfd`)
    unlinkSync(raw('\xfd/\xc3'))
    await eventually('the removal', () => seen().includes('REMOVE \ufffdc3'))
  })

  it('lives through directories that become files, names that are not UTF-8 and paths too long to say', async () => {
    mkdirSync(join(dir, 'turning/inner'), { recursive: true })
    watch(true)
    for (let i = 0; i < 50; i++) {
      mkdirSync(join(dir, 'turning/quick'))
      writeFileSync(join(dir, 'turning/quick/file'), 'x')
      rmSync(join(dir, 'turning'), { recursive: true })
      writeFileSync(join(dir, 'turning'), 'a file now')
      // Lets some of the events be looked at in the middle.
      if (i % 7 === 0) await settled()
      unlinkSync(join(dir, 'turning'))
      mkdirSync(join(dir, 'turning/inner'), { recursive: true })
    }
    writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0xff, 0xfe])]), 'x')
    const before = process.cwd()
    process.chdir(dir)
    try {
      for (let depth = 0; depth < 24; depth++) {
        mkdirSync('y'.repeat(200))
        process.chdir('y'.repeat(200))
        if (depth % 6 === 0) await settled()
        writeFileSync('z'.repeat(250), 'x')
      }
    } finally {
      process.chdir(before)
    }
    await settled()
    process.chdir(dir)
    const { execFileSync } = await import('node:child_process')
    try {
      execFileSync('rm', ['-rf', '--', 'y'.repeat(200)])
    } finally {
      process.chdir(before)
    }
    writeFileSync(join(dir, 'after'), '')
    expect(await settled()).toContain('CREATE after')
  })

  it('becomes silent, not broken, when the watched directory itself goes', async () => {
    const root = join(dir, 'root')
    mkdirSync(root)
    watch(true, root)
    writeFileSync(join(root, 'file'), '')
    await eventually('the file', () => seen().includes('CREATE file'))
    unlinkSync(join(root, 'file'))
    rmdirSync(root)
    await eventually('the removal', () => seen().includes('REMOVE file'))
    mkdirSync(root)
  })

  it('refuses a file, what is missing and what the user may not read', () => {
    writeFileSync(join(dir, 'file'), '')
    mkdirSync(join(dir, 'closed'), { mode: 0o700 })
    const nobody = { ...user, name: 'nobody', uid: 65_534, gid: 65_534 }
    chmodSync(dir, 0o755)
    const attempt = (name: string, as = user) => {
      const options = { recursive: true, allowNetworkMounts: false, user: as }
      return () => new DirectoryWatcher(join(dir, name), options, () => {})
    }
    expect(attempt('file')).toThrow(expect.objectContaining({ code: 'not_a_directory' }))
    expect(attempt('missing')).toThrow(expect.objectContaining({ code: 'file_not_found' }))
    expect(attempt('closed', nobody)).toThrow(expect.objectContaining({ code: 'permission_denied' }))
  })
})
