import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import { Filesystem, FileType } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader, TESTER } from '../testing/agent-harness.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

const asTester = () => harness.client(Filesystem, 'binary', asUserHeader(TESTER.name))
const root = () => harness.client(Filesystem)

function fresh(name: string): string {
  const path = join(harness.dir, name)
  mkdirSync(path)
  chmodSync(path, 0o777)
  return path
}

describe.each(['json', 'binary'] as const)('filesystem.Filesystem over %s', (codec) => {
  const client = () => harness.client(Filesystem, codec)

  it('describes a file', async () => {
    const path = join(harness.dir, `plain-${codec}.txt`)
    writeFileSync(path, 'twelve bytes')
    chmodSync(path, 0o4754)
    utimesSync(path, 1_700_000_000.5, 1_700_000_000.5)
    const { entry } = await client().stat({ path })
    expect(entry).toMatchObject({
      name: `plain-${codec}.txt`,
      path,
      type: FileType.FILE,
      size: 12n,
      mode: 0o4754,
      permissions: '-rwsr-xr--',
      owner: 'root',
      group: 'root',
      isSymlink: false,
    })
    expect(entry?.modifiedTime).toMatchObject({ seconds: 1_700_000_000n, nanos: 500_000_000 })
    expect(entry?.symlinkTarget).toBeUndefined()
  })

  it('answers for what is missing with not_found and our own code', async () => {
    for (const attempt of [
      client().stat({ path: '/no/such' }),
      client().listDir({ path: '/no/such' }),
      client().move({ source: '/no/such', destination: join(harness.dir, 'x') }),
    ])
      await expect(attempt).rejects.toMatchObject({ code: 5 })
    await client().remove({ path: '/no/such' })
    const error = await client()
      .stat({ path: '/no/such' })
      .catch((caught) => caught)
    expect(error.metadata.get(ERROR_CODE_HEADER)).toBe('file_not_found')
  })

  it('keeps names that are odd: new lines, quotes, spaces, 255 bytes of UTF-8, emoji', async () => {
    const dir = fresh(`odd-${codec}`)
    const names = [
      'new\nline',
      ' leading',
      'quote"\'`$(x)',
      '名'.repeat(85),
      '😀.txt',
      'tab\there',
      '-rf',
      '..a',
      '%2e',
    ]
    for (const name of names) {
      await client().makeDir({ path: `${dir}/${name}` })
      expect((await client().stat({ path: `${dir}/${name}` })).entry?.name).toBe(name)
    }
    const { entries } = await client().listDir({ path: dir })
    expect(entries.map((each) => each.name).sort()).toEqual([...names].sort())
    expect(readdirSync(dir).length).toBe(names.length)
    for (const name of names) await client().remove({ path: `${dir}/${name}` })
    expect(readdirSync(dir)).toEqual([])
  })

  it('tells names that are not UTF-8 apart and reaches each, in every call', async () => {
    const dir = fresh(`bytes-${codec}`)
    const raw = Buffer.concat([Buffer.from(`${dir}/bad-`), Buffer.from([0xff, 0xfe, 0x80])])
    mkdirSync(raw)
    closeSync(openSync(Buffer.concat([raw, Buffer.from('/in\xe9side', 'latin1')]), 'w'))
    writeFileSync(`${dir}/\ufffd literal`, 'x')
    const { entries } = await client().listDir({ path: dir, depth: 3 })
    expect(entries.map((each) => [each.name, each.type])).toEqual([
      ['bad-\ufffdff\ufffdfe\ufffd80', FileType.DIRECTORY],
      ['in\ufffde9side', FileType.FILE],
      ['\ufffd literal', FileType.FILE],
    ])
    for (const { path, name } of entries) expect((await client().stat({ path })).entry).toMatchObject({ path, name })
    const odd = `${dir}/bad-\ufffdff\ufffdfe\ufffd80`
    await expect(client().stat({ path: `${dir}/bad-\ufffd\ufffd\ufffd` })).rejects.toMatchObject({ code: 5 })
    await client().makeDir({ path: `${odd}/\ufffdfe/\ufffdff` })
    symlinkSync(Buffer.concat([raw, Buffer.from('/in\xe9side', 'latin1')]), `${dir}/link`)
    expect((await client().stat({ path: `${dir}/link` })).entry?.symlinkTarget).toBe(`${odd}/in\ufffde9side`)
    symlinkSync(Buffer.from('no\xffwhere', 'latin1'), Buffer.concat([raw, Buffer.from('/dangling')]))
    expect((await client().stat({ path: `${odd}/dangling` })).entry?.symlinkTarget).toBe('no\ufffdffwhere')
    await client().move({ source: `${odd}/\ufffdfe`, destination: `${dir}/\ufffdc3/\ufffdfd` })
    expect(readdirSync(dir, { encoding: 'latin1' })).toContain('\xc3')
    expect((await client().listDir({ path: `${dir}/\ufffdc3/\ufffdfd` })).entries[0]?.name).toBe('\ufffdff')
    await client().remove({ path: `${odd}/in\ufffde9side` })
    expect((await client().listDir({ path: odd })).entries.map((each) => each.name)).toEqual(['dangling'])
    await client().remove({ path: dir })
    expect(existsSync(dir)).toBe(false)
  })

  it('knows times to the nanosecond, also before 1970', async () => {
    const path = join(harness.dir, `nanoseconds-${codec}`)
    writeFileSync(path, '')
    for (const [time, seconds, nanos] of [
      ['1700000000.999999999', 1_700_000_000n, 999_999_999],
      ['-86399.25', -86_400n, 750_000_000],
    ] as const) {
      execFileSync('touch', ['-d', `@${time}`, path])
      expect((await client().stat({ path })).entry?.modifiedTime).toMatchObject({ seconds, nanos })
    }
  })

  it('describes files whose times are beyond what the wire can say', async () => {
    const dir = fresh(`times-${codec}`)
    for (const [name, seconds] of [
      ['future', 300_000_000_000],
      ['past', -300_000_000_000],
      ['old', -2],
    ] as const) {
      const path = `/dev/shm/wrenn-test-${process.pid}-${codec}-${name}`
      writeFileSync(path, '')
      execFileSync('touch', ['-d', `@${seconds}`, path])
      symlinkSync(path, `${dir}/${name}`)
    }
    const { entries } = await client().listDir({ path: dir })
    expect(entries.map((each) => each.modifiedTime?.seconds)).toEqual([253_402_300_799n, -2n, -62_135_596_800n])
    for (const { symlinkTarget } of entries) await client().remove({ path: String(symlinkTarget) })
  })
})

describe('Stat', () => {
  it('resolves ~, relative and empty paths against the home of the user', async () => {
    writeFileSync(join(harness.home, 'note'), 'x')
    for (const path of ['~/note', 'note', './note', '~/../home/note', join(harness.home, 'note')]) {
      expect((await asTester().stat({ path })).entry?.path).toBe(join(harness.home, 'note'))
    }
    for (const path of ['', '~', '.']) expect((await asTester().stat({ path })).entry?.path).toBe(harness.home)
    writeFileSync(join(harness.home, '~odd'), 'x')
    expect((await asTester().stat({ path: '~odd' })).entry?.name).toBe('~odd')
    await expect(asTester().stat({ path: 'nul\0byte' })).rejects.toMatchObject({ code: 3 })
  })

  it("shows a link as its target, with the target's resolved path", async () => {
    const dir = fresh('links')
    writeFileSync(`${dir}/target`, '1234')
    mkdirSync(`${dir}/folder`)
    symlinkSync('target', `${dir}/link`)
    symlinkSync('link', `${dir}/link-to-link`)
    symlinkSync('folder', `${dir}/folder-link`)
    symlinkSync('/no/such', `${dir}/dangling`)
    symlinkSync('loop', `${dir}/loop`)
    const found = async (name: string) => (await root().stat({ path: `${dir}/${name}` })).entry
    const file = { type: FileType.FILE, isSymlink: true, size: 4n, symlinkTarget: `${dir}/target` }
    expect(await found('link')).toMatchObject({ ...file, name: 'link' })
    expect(await found('link-to-link')).toMatchObject({ ...file, path: `${dir}/link-to-link` })
    expect(await found('folder-link')).toMatchObject({ type: FileType.DIRECTORY, symlinkTarget: `${dir}/folder` })
    expect(await found('dangling')).toMatchObject({
      type: FileType.SYMLINK,
      isSymlink: true,
      permissions: 'lrwxrwxrwx',
      symlinkTarget: '/no/such',
    })
    expect(await found('loop')).toMatchObject({ type: FileType.SYMLINK, symlinkTarget: 'loop' })
  })

  it('describes devices, and files of users and groups without a name', async () => {
    expect((await root().stat({ path: '/dev/null' })).entry).toMatchObject({
      type: FileType.UNSPECIFIED,
      permissions: expect.stringMatching(/^crw/),
    })
    const path = join(harness.home, 'mine')
    await asTester().makeDir({ path })
    expect((await root().stat({ path })).entry).toMatchObject({ owner: TESTER.name, group: TESTER.name })
  })

  it('denies what the user may not reach', async () => {
    mkdirSync(`${harness.dir}/closed`, { mode: 0o700 })
    writeFileSync(`${harness.dir}/closed/file`, '')
    const error = await asTester()
      .stat({ path: `${harness.dir}/closed/file` })
      .catch((caught) => caught)
    expect(error).toMatchObject({ code: 7 })
    await expect(asTester().listDir({ path: `${harness.dir}/closed` })).rejects.toMatchObject({ code: 7 })
    await expect(root().stat({ path: `${harness.dir}/closed/file/x` })).rejects.toMatchObject({ code: 3 })
    await expect(root().stat({ path: `/${'x'.repeat(300)}` })).rejects.toMatchObject({ code: 3 })
  })
})

describe('ListDir', () => {
  it('lists each directory before its content, by name, down to the depth, without following links', async () => {
    const dir = fresh('tree')
    mkdirSync(`${dir}/b/deep/deeper`, { recursive: true })
    for (const name of ['a', 'B', 'c', 'b/1', 'b/deep/2', 'b/deep/deeper/3', 'b-']) writeFileSync(`${dir}/${name}`, '')
    symlinkSync('b', `${dir}/d`)
    const names = async (depth: number, path = dir) =>
      (await root().listDir({ path, depth })).entries.map((each) => each.path.slice(path.length + 1))
    expect(await names(0)).toEqual(['B', 'a', 'b', 'b-', 'c', 'd'])
    expect(await names(1)).toEqual(await names(0))
    expect(await names(2)).toEqual(['B', 'a', 'b', 'b/1', 'b/deep', 'b-', 'c', 'd'])
    expect(await names(99)).toEqual([
      'B',
      'a',
      'b',
      'b/1',
      'b/deep',
      'b/deep/2',
      'b/deep/deeper',
      'b/deep/deeper/3',
      'b-',
      'c',
      'd',
    ])
    expect(await names(1, `${dir}/d`)).toEqual(['1', 'deep'])
  })

  it('lists 10,000 files and lets other calls through meanwhile', async () => {
    const dir = fresh('many')
    const first = `${dir}/00000`
    writeFileSync(first, '')
    for (let i = 1; i < 10_000; i++) linkSync(first, `${dir}/${String(i).padStart(5, '0')}`)
    let isListed = false
    const listing = root()
      .listDir({ path: dir })
      .finally(() => {
        isListed = true
      })
    await root().stat({ path: first })
    expect(isListed).toBe(false)
    const { entries } = await listing
    expect(entries.length).toBe(10_000)
    expect(entries[9_999]?.name).toBe('09999')
  })

  it('leaves out what the user may not look into, and refuses a file', async () => {
    const dir = fresh('mixed')
    mkdirSync(`${dir}/closed/inside`, { recursive: true })
    chmodSync(`${dir}/closed`, 0o700)
    writeFileSync(`${dir}/open`, '')
    const { entries } = await asTester().listDir({ path: dir, depth: 5 })
    expect(entries.map((each) => each.name)).toEqual(['closed', 'open'])
    await expect(root().listDir({ path: `${dir}/open` })).rejects.toMatchObject({ code: 3 })
  })

  it('lists and removes a tree deeper than any path can say', async () => {
    const dir = fresh('abyss')
    const step = 'x'.repeat(200)
    const before = process.cwd()
    process.chdir(dir)
    try {
      for (let depth = 0; depth < 30; depth++) {
        mkdirSync(step)
        process.chdir(step)
      }
    } finally {
      process.chdir(before)
    }
    const { entries } = await root().listDir({ path: dir, depth: 1000 })
    expect(entries.length).toBeGreaterThan(10)
    await root().remove({ path: dir })
    expect(existsSync(dir)).toBe(false)
  })
})

describe('MakeDir', () => {
  it("makes parents, all the user's own with mode 0755", async () => {
    const { entry } = await asTester().makeDir({ path: 'made/of/many' })
    expect(entry).toMatchObject({ owner: TESTER.name, group: TESTER.name, permissions: 'drwxr-xr-x' })
    const parent = lstatSync(join(harness.home, 'made/of'))
    expect([parent.uid, parent.gid, parent.mode & 0o7777]).toEqual([TESTER.uid, TESTER.gid, 0o755])
  })

  it('refuses what exists, what is in the way, and what is forbidden', async () => {
    const dir = fresh('taken')
    writeFileSync(`${dir}/file`, '')
    symlinkSync('/no/such', `${dir}/dangling`)
    await expect(root().makeDir({ path: dir })).rejects.toMatchObject({ code: 6 })
    await expect(root().makeDir({ path: '/' })).rejects.toMatchObject({ code: 6 })
    await expect(root().makeDir({ path: `${dir}/file` })).rejects.toMatchObject({ code: 3 })
    await expect(root().makeDir({ path: `${dir}/file/below` })).rejects.toMatchObject({ code: 3 })
    await expect(root().makeDir({ path: `${dir}/file/far/below` })).rejects.toMatchObject({ code: 3 })
    await expect(root().makeDir({ path: `${dir}/dangling` })).rejects.toMatchObject({ code: 6 })
    await expect(asTester().makeDir({ path: '/root/x/y' })).rejects.toMatchObject({ code: 7 })
    await expect(asTester().makeDir({ path: '/proc/x' })).rejects.toMatchObject({ code: expect.any(Number) })
  })
})

describe('Move', () => {
  it('renames files, links and directories, makes parents, replaces a file', async () => {
    const dir = fresh('moving')
    writeFileSync(`${dir}/a`, 'A')
    writeFileSync(`${dir}/b`, 'B')
    symlinkSync('/no/such', `${dir}/link`)
    mkdirSync(`${dir}/folder/inner`, { recursive: true })
    const { entry } = await root().move({ source: `${dir}/a`, destination: `${dir}/new/parents/a2` })
    expect(entry).toMatchObject({ path: `${dir}/new/parents/a2`, size: 1n })
    await root().move({ source: `${dir}/b`, destination: `${dir}/new/parents/a2` })
    expect(readFileSync(`${dir}/new/parents/a2`, 'utf8')).toBe('B')
    expect((await root().move({ source: `${dir}/link`, destination: `${dir}/link2` })).entry?.isSymlink).toBe(true)
    await root().move({ source: `${dir}/folder`, destination: `${dir}/moved` })
    expect(existsSync(`${dir}/moved/inner`)).toBe(true)
  })

  it('refuses another name of the same file and what a link leads to, and does nothing where both are one', async () => {
    const dir = fresh('two-names')
    writeFileSync(`${dir}/a`, 'A')
    linkSync(`${dir}/a`, `${dir}/b`)
    symlinkSync('.', `${dir}/here`)
    await expect(root().move({ source: `${dir}/a`, destination: `${dir}/b` })).rejects.toMatchObject({ code: 6 })
    symlinkSync('a', `${dir}/link`)
    await expect(root().move({ source: `${dir}/link`, destination: `${dir}/a` })).rejects.toMatchObject({ code: 6 })
    await root().remove({ path: `${dir}/link` })
    expect(readdirSync(dir)).toEqual(['a', 'b', 'here'])
    for (const destination of [`${dir}/b`, `${dir}/here/b`]) {
      await root().move({ source: `${dir}/b`, destination })
      expect(readFileSync(`${dir}/b`, 'utf8')).toBe('A')
    }
  })

  it('describes what it moved also where that was the link on the way', async () => {
    const dir = fresh('by-itself')
    symlinkSync('.', `${dir}/link`)
    const { entry } = await root().move({ source: `${dir}/link`, destination: `${dir}/link/moved` })
    expect(entry).toMatchObject({ path: `${dir}/link/moved`, name: 'moved', isSymlink: true })
    expect(readdirSync(dir)).toEqual(['moved'])
  })

  it('refuses a directory into itself, over a full directory, and without rights', async () => {
    const dir = fresh('stuck')
    mkdirSync(`${dir}/a/full`, { recursive: true })
    mkdirSync(`${dir}/b/full`, { recursive: true })
    await expect(root().move({ source: `${dir}/a`, destination: `${dir}/a/full/a` })).rejects.toMatchObject({ code: 3 })
    await expect(root().move({ source: `${dir}/a`, destination: `${dir}/b` })).rejects.toMatchObject({ code: 6 })
    const fromClosed = asTester().move({ source: `${dir}/a/full`, destination: `${harness.home}/full` })
    await expect(fromClosed).rejects.toMatchObject({ code: 7 })
  })

  it('moves files and trees to another file system, with rights, times and links', async () => {
    const dir = fresh('crossing')
    const target = `/dev/shm/wrenn-move-${process.pid}`
    mkdirSync(`${dir}/tree/sub`, { recursive: true })
    writeFileSync(`${dir}/tree/sub/file`, 'content')
    writeFileSync(Buffer.from(`${dir}/\xfe\n`, 'latin1'), 'odd')
    await root().move({ source: `${dir}/\ufffdfe\n`, destination: `${target}-\ufffdff\n` })
    expect(readFileSync(Buffer.from(`${target}-\xff\n`, 'latin1'), 'utf8')).toBe('odd')
    await root().remove({ path: `${target}-\ufffdff\n` })
    chmodSync(`${dir}/tree/sub/file`, 0o640)
    symlinkSync('sub/file', `${dir}/tree/link`)
    await root().move({ source: `${dir}/tree`, destination: target })
    expect(existsSync(`${dir}/tree`)).toBe(false)
    expect(readFileSync(`${target}/sub/file`, 'utf8')).toBe('content')
    expect(lstatSync(`${target}/sub/file`).mode & 0o777).toBe(0o640)
    expect(lstatSync(`${target}/link`).isSymbolicLink()).toBe(true)
    await root().remove({ path: target })
  })
})

describe('Remove', () => {
  it('removes a tree without following links out of it', async () => {
    const dir = fresh('doomed')
    const kept = fresh('kept')
    writeFileSync(`${kept}/file`, '')
    mkdirSync(`${dir}/x/y`, { recursive: true })
    symlinkSync(kept, `${dir}/x/link`)
    await root().remove({ path: dir })
    expect(existsSync(dir)).toBe(false)
    expect(existsSync(`${kept}/file`)).toBe(true)
    symlinkSync(kept, `${harness.dir}/link-to-kept`)
    await root().remove({ path: `${harness.dir}/link-to-kept` })
    expect(existsSync(kept)).toBe(true)
  })

  it('counts what lies below a file as removed, and needs no look into a directory that is empty', async () => {
    const dir = fresh('odd-removals')
    writeFileSync(`${dir}/file`, '')
    await root().remove({ path: `${dir}/file/x` })
    for (const name of ['empty', 'full/x']) {
      await asTester().makeDir({ path: `${dir}/${name}` })
      chmodSync(`${dir}/${name.slice(0, 5).replace('/', '')}`, 0)
    }
    await asTester().remove({ path: `${dir}/empty` })
    await expect(asTester().remove({ path: `${dir}/full` })).rejects.toMatchObject({ code: 7 })
    expect(readdirSync(dir)).toEqual(['file', 'full'])
  })

  it('refuses the root directory by any name, and what the user may not remove', async () => {
    await expect(root().remove({ path: '/' })).rejects.toMatchObject({ code: 3 })
    await expect(root().remove({ path: '//' })).rejects.toMatchObject({ code: 3 })
    await expect(root().remove({ path: '/tmp/..' })).rejects.toMatchObject({ code: 3 })
    const dir = join(harness.dir, 'of-root')
    mkdirSync(`${dir}/x`, { recursive: true })
    await expect(asTester().remove({ path: `${dir}/x` })).rejects.toMatchObject({ code: 7 })
    expect(existsSync(`${dir}/x`)).toBe(true)
  })
})

describe('metadata of files', () => {
  it('comes with Stat, ListDir and Move, and goes with the next upload without it', async () => {
    const dir = fresh('labelled')
    const path = `${dir}/with space\nand line`
    const upload = (headers: Record<string, string>) =>
      harness.fetch(`/files?path=${encodeURIComponent(path)}`, {
        method: 'POST',
        body: 'x',
        headers: { 'content-type': 'application/octet-stream', ...headers },
      })
    const answer = await upload({ 'X-Metadata-Color': 'blue', 'X-Metadata-odd.key_1': 'a=b "c" \\ \xe9' })
    const metadata = { color: 'blue', 'odd.key_1': 'a=b "c" \\ \xe9' }
    expect(await answer.json()).toEqual([{ path, name: 'with space\nand line', type: 'file', metadata }])
    expect((await root().stat({ path })).entry?.metadata).toEqual(metadata)
    expect((await root().listDir({ path: dir })).entries[0]?.metadata).toEqual(metadata)
    const moved = await root().move({ source: path, destination: `${dir}/\u540d` })
    expect(moved.entry?.metadata).toEqual(metadata)
    await root().move({ source: `${dir}/\u540d`, destination: path })
    await upload({ 'X-Metadata-shape': 'round' })
    expect((await root().stat({ path })).entry?.metadata).toEqual({ shape: 'round' })
    await upload({})
    expect((await root().stat({ path })).entry?.metadata).toEqual({})
  })

  it('is found under a name that is not UTF-8 too', async () => {
    const dir = fresh('labelled-odd')
    const path = `${dir}/\ufffdfe`
    const headers = { 'content-type': 'application/octet-stream', 'X-Metadata-Color': 'blue' }
    await harness.fetch(`/files?path=${encodeURIComponent(path)}`, { method: 'POST', body: 'x', headers })
    expect((await root().stat({ path })).entry?.metadata).toEqual({ color: 'blue' })
    expect((await root().listDir({ path: dir })).entries[0]?.metadata).toEqual({ color: 'blue' })
  })
})

describe('users', () => {
  it('are refused when unknown, and default to the one of /init', async () => {
    const stranger = harness.client(Filesystem, 'binary', asUserHeader('zork'))
    await expect(stranger.stat({ path: '/' })).rejects.toMatchObject({
      code: 16,
      rawMessage: "invalid username: 'zork'",
    })
    await using own = await AgentHarness.start()
    await own.init({ defaultUser: TESTER.name, defaultCwd: own.dir })
    const { entry } = await own.client(Filesystem).makeDir({ path: 'by-default' })
    expect(entry).toMatchObject({ path: join(own.home, 'by-default'), owner: TESTER.name })
    expect((await own.client(Filesystem).stat({ path: '' })).entry?.path).toBe(own.dir)
    const byNumber = own.client(Filesystem, 'json', asUserHeader(String(TESTER.uid)))
    expect((await byNumber.makeDir({ path: 'by-number' })).entry?.owner).toBe(TESTER.name)
  })

  it('have the rights of their supplementary groups', async () => {
    const dir = join(harness.dir, 'for-group')
    await root().makeDir({ path: dir })
    chmodSync(dir, 0o770)
    const { chownSync } = await import('node:fs')
    chownSync(dir, 0, TESTER.groups[1])
    expect((await asTester().makeDir({ path: `${dir}/inside` })).entry?.owner).toBe(TESTER.name)
    const nobody = harness.client(Filesystem, 'binary', asUserHeader('nobody'))
    await expect(nobody.listDir({ path: dir })).rejects.toMatchObject({ code: 7 })
  })
})
