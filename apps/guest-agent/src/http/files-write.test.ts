import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { type ClientRequest, request } from 'node:http'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { pathBytes } from '@wrenn/base'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import { Filesystem } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TESTER } from '../testing/agent-harness.js'
import { eventually } from '../testing/eventually.js'

const MIB = 1024 * 1024

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

const octets = { 'content-type': 'application/octet-stream' }

function put(
  path: string,
  body: string | Uint8Array,
  headers: Record<string, string> = octets,
  more = '',
): Promise<Response> {
  return harness.fetch(`/files?path=${encodeURIComponent(path)}${more}`, { method: 'POST', body, headers })
}

function form(...parts: readonly (readonly [string, string, string?])[]): FormData {
  const data = new FormData()
  for (const [field, content, filename] of parts)
    if (filename === undefined) data.append(field, content)
    else data.append(field, new Blob([content]), filename)
  return data
}

const post = (body: FormData, query = '') => harness.fetch(`/files${query}`, { method: 'POST', body })

function fresh(name: string): string {
  const path = join(harness.dir, name)
  mkdirSync(path)
  chmodSync(path, 0o777)
  return path
}

/** A request whose body is written by hand. */
function begin(path: string, headers: Record<string, string>): ClientRequest {
  const outgoing = request({
    port: harness.agent.port,
    method: 'POST',
    path: `/files?path=${encodeURIComponent(path)}`,
    headers: { 'x-wrenn-secret': SECRET, ...headers },
  })
  outgoing.on('error', () => {})
  return outgoing
}

function openFilesIn(dir: string): readonly string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const target = readlinkSync(`/proc/self/fd/${fd}`)
      return target.startsWith(dir) ? [target] : []
    } catch {
      return []
    }
  })
}

describe('POST /files with the file as body', () => {
  it('writes it, makes parents, gives all to the user and answers with one entry', async () => {
    const path = join(harness.home, 'new/parents/file')
    const response = await put(path, 'content', octets, `&username=${TESTER.name}`)
    expect([response.status, await response.json()]).toEqual([200, [{ path, name: 'file', type: 'file' }]])
    expect(readFileSync(path, 'utf8')).toBe('content')
    for (const [each, mode] of [
      [path, 0o644],
      [join(harness.home, 'new/parents'), 0o755],
      [join(harness.home, 'new'), 0o755],
    ] as const) {
      const stats = statSync(each)
      expect([stats.uid, stats.gid, stats.mode & 0o777]).toEqual([TESTER.uid, TESTER.gid, mode])
    }
  })

  it('takes a path relative to the home, an empty body and any bytes', async () => {
    const response = await put('relative', '', octets, `&username=${TESTER.name}`)
    const [entry] = JSON.parse(await response.text())
    expect(entry.path).toBe(join(harness.home, 'relative'))
    expect(statSync(entry.path).size).toBe(0)
    const bytes = Buffer.from(Array.from({ length: 3 * MIB }, (_, i) => (i * 7) % 256))
    const path = join(harness.dir, 'bytes')
    await put(path, bytes)
    expect(readFileSync(path).equals(bytes)).toBe(true)
  })

  it('replaces a file, keeps its mode unless told another, and does not touch it before the end', async () => {
    const path = join(harness.dir, 'script')
    writeFileSync(path, 'old')
    chmodSync(path, 0o750)
    const outgoing = begin(path, octets)
    outgoing.write('new '.repeat(MIB / 4))
    await eventually('the upload to begin', () => openFilesIn(harness.dir).length > 0)
    expect(readFileSync(path, 'utf8')).toBe('old')
    const answered = new Promise((resolve) => outgoing.once('response', resolve))
    outgoing.end('content')
    await answered
    expect(readFileSync(path, 'utf8')).toBe(`${'new '.repeat(MIB / 4)}content`)
    expect(statSync(path).mode & 0o777).toBe(0o750)
    await put(path, 'x', octets, '&mode=600')
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect((await put(path, 'x', octets, '&mode=9')).status).toBe(400)
  })

  it('writes through a link to its target', async () => {
    const dir = fresh('linked')
    writeFileSync(`${dir}/target`, 'old')
    symlinkSync('target', `${dir}/link`)
    await put(`${dir}/link`, 'new')
    expect(lstatSync(`${dir}/link`).isSymbolicLink()).toBe(true)
    expect(readFileSync(`${dir}/target`, 'utf8')).toBe('new')
  })

  it('writes through a link whose target is not there yet', async () => {
    const dir = fresh('dangling')
    symlinkSync('made-later', `${dir}/link`)
    await put(`${dir}/link`, 'new')
    expect(lstatSync(`${dir}/link`).isSymbolicLink()).toBe(true)
    expect(readFileSync(`${dir}/made-later`, 'utf8')).toBe('new')
  })

  it('decodes gzip and refuses a broken one, a cut one and other encodings', async () => {
    const dir = fresh('encoded')
    const gzip = { ...octets, 'content-encoding': 'gzip' }
    const packed = gzipSync(Buffer.alloc(5 * MIB, 'z'))
    expect((await put(`${dir}/ok`, packed, gzip)).status).toBe(200)
    expect(statSync(`${dir}/ok`).size).toBe(5 * MIB)
    expect((await put(`${dir}/broken`, 'not gzip', gzip)).status).toBe(400)
    expect((await put(`${dir}/cut`, packed.subarray(0, packed.length - 20), gzip)).status).toBe(400)
    for (const coding of ['br', 'zstd', 'gzip, gzip', 'nonsense']) {
      const refused = await put(`${dir}/other`, 'x', { ...octets, 'content-encoding': coding })
      expect([refused.status, refused.headers.get('accept-encoding')]).toEqual([415, 'gzip, identity'])
    }
    expect(readdirSync(dir)).toEqual(['ok'])
  })

  it('needs a path, and refuses directories, what is not a file and what is forbidden', async () => {
    const dir = fresh('refusing')
    writeFileSync(`${dir}/file`, 'x')
    const missing = await harness.fetch('/files', { method: 'POST', body: 'x', headers: octets })
    expect(missing.status).toBe(400)
    expect((await put(dir, 'x')).status).toBe(400)
    expect((await put('/dev/null', 'x')).status).toBe(400)
    expect((await put(`${dir}/file/below`, 'x')).status).toBe(400)
    expect((await put(`${dir}/${'x'.repeat(256)}`, 'x')).status).toBe(400)
    expect((await put('/root/x', 'x', octets, `&username=${TESTER.name}`)).status).toBe(403)
    expect((await put(`${dir}/x`, 'x', octets, '&username=zork')).status).toBe(401)
    expect(readdirSync(dir)).toEqual(['file'])
  })

  it('writes in place where the user may write the file but not its directory', async () => {
    const dir = join(harness.dir, 'of-root')
    mkdirSync(dir)
    writeFileSync(`${dir}/file`, 'old old old')
    chownSync(`${dir}/file`, TESTER.uid, TESTER.gid)
    expect((await put(`${dir}/file`, 'new', octets, `&username=${TESTER.name}`)).status).toBe(200)
    expect(readFileSync(`${dir}/file`, 'utf8')).toBe('new')
    expect((await put(`${dir}/other`, 'new', octets, `&username=${TESTER.name}`)).status).toBe(403)
  })

  it('leaves nothing of an upload that breaks off', async () => {
    const dir = fresh('aborted')
    writeFileSync(`${dir}/kept`, 'old')
    for (const [name, headers] of [
      ['sized', { ...octets, 'content-length': String(8 * MIB) }],
      ['chunked', octets],
      ['kept', octets],
      ['packed', { ...octets, 'content-encoding': 'gzip' }],
    ] as const) {
      const outgoing = begin(`${dir}/${name}`, headers)
      outgoing.write(name === 'packed' ? gzipSync(Buffer.alloc(MIB, 'x')).subarray(0, 500) : Buffer.alloc(2 * MIB))
      await eventually('the upload to begin', () => openFilesIn(dir).length > 0)
      outgoing.destroy()
      await eventually(
        'it to be cleared away',
        () => readdirSync(dir).join() === 'kept' && openFilesIn(dir).length === 0,
      )
    }
    expect(readFileSync(`${dir}/kept`, 'utf8')).toBe('old')
    await eventually('the files to be closed', () => openFilesIn(dir).length === 0)
  })
})

/** The state of a file that must outlive its content. */
function identity(path: string) {
  const { uid, gid, mode, ino, nlink } = statSync(path)
  const attributes = execFileSync('getfattr', ['--absolute-names', '-d', '-m', '-', '-e', 'hex', path], {
    encoding: 'utf8',
  })
  return { uid, gid, mode, ino, nlink, attributes: attributes.split('\n').slice(1) }
}

describe('POST /files over a file that is there', () => {
  it.each([
    ['shorter', 'short'],
    ['as long', 'x'.repeat(1_000)],
    ['longer', Buffer.alloc(3 * MIB, 'long')],
    ['empty', ''],
  ])('keeps owner, group, mode, attributes and links when the new content is %s', async (kind, content) => {
    const dir = fresh(`identity-${kind}`)
    writeFileSync(`${dir}/file`, 'o'.repeat(1_000))
    chownSync(`${dir}/file`, TESTER.uid, TESTER.groups[0])
    chmodSync(`${dir}/file`, 0o660)
    linkSync(`${dir}/file`, `${dir}/link`)
    execFileSync('setfattr', ['-n', 'user.origin', '-v', 'here', `${dir}/file`])
    execFileSync('setfattr', ['-n', 'trusted.mark', '-v', 'there', `${dir}/file`])
    const before = identity(`${dir}/file`)
    for (const user of ['', `&username=${TESTER.name}`]) {
      expect((await put(`${dir}/file`, content, octets, user)).status).toBe(200)
      expect(identity(`${dir}/file`)).toEqual(before)
      expect(readFileSync(`${dir}/link`).equals(Buffer.from(content))).toBe(true)
    }
    expect(readdirSync(dir)).toEqual(['file', 'link'])
  })

  it('takes privileges away as a write does: set-uid when the writer is not root, capabilities always', async () => {
    const dir = fresh('privileges')
    for (const name of ['by-root', 'by-tester']) {
      writeFileSync(`${dir}/${name}`, 'old')
      chownSync(`${dir}/${name}`, TESTER.uid, TESTER.gid)
      // cap_net_raw+ep, in the form of version 2 (linux/capability.h).
      execFileSync('setfattr', [
        '-n',
        'security.capability',
        '-v',
        '0x0100000200200000000000000000000000000000',
        `${dir}/${name}`,
      ])
      chmodSync(`${dir}/${name}`, 0o6755)
    }
    await put(`${dir}/by-root`, 'new')
    await put(`${dir}/by-tester`, 'new', octets, `&username=${TESTER.name}`)
    expect(statSync(`${dir}/by-root`).mode & 0o7777).toBe(0o6755)
    expect(statSync(`${dir}/by-tester`).mode & 0o7777).toBe(0o755)
    for (const name of readdirSync(dir)) expect(identity(`${dir}/${name}`).attributes).toEqual([])
  })

  it('sets the whole mode that an owner asks for, and leaves the old one where there is no room for the content', async () => {
    const dir = fresh('whole-mode')
    const asOwner = `&username=${TESTER.name}&mode=4755`
    for (const content of ['new', 'over']) expect((await put(`${dir}/file`, content, octets, asOwner)).status).toBe(200)
    expect(statSync(`${dir}/file`).mode & 0o7777).toBe(0o4755)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'wrenn-test-mode', dir])
    try {
      writeFileSync(`${dir}/file`, 'old', { mode: 0o640 })
      expect((await put(`${dir}/file`, Buffer.alloc(2 * MIB), octets, '&mode=777')).status).toBe(507)
      expect(statSync(`${dir}/file`).mode & 0o777).toBe(0o640)
    } finally {
      execFileSync('umount', [dir])
    }
  })

  it('refuses a mode from a user who does not own the file, and keeps its content then', async () => {
    const dir = fresh('not-owner')
    writeFileSync(`${dir}/file`, 'old')
    chmodSync(`${dir}/file`, 0o666)
    expect((await put(`${dir}/file`, 'new', octets, `&username=${TESTER.name}&mode=600`)).status).toBe(403)
    expect(readFileSync(`${dir}/file`, 'utf8')).toBe('old')
    expect((await put(`${dir}/file`, 'new', octets, `&username=${TESTER.name}`)).status).toBe(200)
    expect(statSync(`${dir}/file`).mode & 0o777).toBe(0o666)
  })

  it('puts a new file in the place of a program that runs, unless it has more names', async () => {
    const dir = fresh('running')
    const path = `${dir}/program`
    copyFileSync('/bin/sleep', path)
    chownSync(path, TESTER.uid, TESTER.gid)
    chmodSync(path, 0o750)
    execFileSync('setfattr', ['-n', 'user.origin', '-v', 'here', path])
    const before = identity(path)
    const running = spawn(path, ['600'])
    await once(running, 'spawn')
    try {
      linkSync(path, `${dir}/other`)
      expect((await put(path, 'new')).status).toBe(409)
      rmSync(`${dir}/other`)
      expect((await put(path, 'new')).status).toBe(200)
      expect(readFileSync(path, 'utf8')).toBe('new')
      expect(identity(path)).toEqual({ ...before, ino: expect.any(Number) })
      expect(readlinkSync(`/proc/${running.pid}/exe`)).toContain('deleted')
    } finally {
      running.kill()
    }
  })

  it('writes a value into a file of the kernel', async () => {
    const before = readFileSync('/proc/self/comm', 'utf8')
    expect((await put('/proc/self/comm', 'renamed')).status).toBe(200)
    expect(readFileSync('/proc/self/comm', 'utf8')).toBe('renamed\n')
    await put('/proc/self/comm', before.trimEnd())
    expect((await put('/proc/self/oom_score_adj', 'nonsense')).status).toBe(400)
  })

  it('lets uploads at once win one after the other, each whole, and readers see one of them or a cut', async () => {
    const dir = fresh('contended')
    const path = `${dir}/file`
    const versions = ['a', 'b', 'c', 'd'].map((letter, at) => Buffer.alloc(2 * MIB + at * 100_000, letter))
    writeFileSync(path, versions[0] ?? '')
    linkSync(path, `${dir}/link`)
    const isVersion = (bytes: Buffer) => versions.some((version) => version.equals(bytes))
    let cut = 0
    for (let round = 0; round < 5; round++) {
      const writes = versions.map((version) => put(path, version))
      const reads = versions.map(async () => {
        try {
          const response = await harness.fetch(`/files?path=${encodeURIComponent(path)}`)
          expect(isVersion(Buffer.from(await response.arrayBuffer()))).toBe(true)
        } catch (error) {
          if (!(error instanceof TypeError)) throw error
          cut++
        }
      })
      for (const { status } of await Promise.all(writes)) expect(status).toBe(200)
      await Promise.all(reads)
      expect(isVersion(readFileSync(path))).toBe(true)
    }
    expect(cut).toBeLessThanOrEqual(20)
    expect(statSync(path).nlink).toBe(2)
  })

  it('gives the content to a file that somebody made meanwhile', async () => {
    const dir = fresh('overtaken')
    const outgoing = begin(`${dir}/file`, octets)
    outgoing.write('first half, ')
    await eventually('the upload to begin', () => openFilesIn(dir).length > 0)
    writeFileSync(`${dir}/file`, 'of somebody else')
    chownSync(`${dir}/file`, TESTER.uid, TESTER.gid)
    const answered = new Promise((resolve) => outgoing.once('response', resolve))
    outgoing.end('second half')
    await answered
    expect([readFileSync(`${dir}/file`, 'utf8'), statSync(`${dir}/file`).uid]).toEqual([
      'first half, second half',
      TESTER.uid,
    ])
    expect(readdirSync(dir)).toEqual(['file'])
  })

  it('makes the file when it was removed meanwhile', async () => {
    const dir = fresh('removed')
    writeFileSync(`${dir}/file`, 'old')
    const outgoing = begin(`${dir}/file`, octets)
    outgoing.write(Buffer.alloc(MIB, 'n'))
    await eventually('the upload to begin', () => openFilesIn(dir).length > 0)
    rmSync(`${dir}/file`)
    const answered = new Promise((resolve) => outgoing.once('response', resolve))
    outgoing.end()
    await answered
    expect(statSync(`${dir}/file`).size).toBe(MIB)
  })
})

describe('PUT /files with conditions', () => {
  const write = async (
    path: string,
    body: string,
    headers: Record<string, string>,
  ): Promise<readonly [number, string | null]> => {
    const url = `/files?path=${encodeURIComponent(path)}`
    const response = await harness.fetch(url, { method: 'PUT', body, headers: { ...octets, ...headers } })
    return [response.status, response.headers.get(ERROR_CODE_HEADER)]
  }
  const failed = [412, 'precondition_failed']

  /** A packed answer has a weak tag, which no condition of an upload holds for. */
  async function tagOf(path: string): Promise<string> {
    let etag = ''
    await eventually('the file to have a tag', async () => {
      const request = { method: 'HEAD', headers: { 'accept-encoding': 'identity' } }
      etag = (await harness.fetch(`/files?path=${path}`, request)).headers.get('etag') ?? ''
      return etag !== ''
    })
    return etag
  }

  it('replaces only the version that is named', async () => {
    const path = join(fresh('if-match'), 'file')
    expect(await write(path, 'x', { 'if-match': '*' })).toEqual(failed)
    expect(await write(path, 'x', { 'if-match': '"none"' })).toEqual(failed)
    expect(existsSync(path)).toBe(false)
    await put(path, 'one')
    const etag = await tagOf(path)
    const modified = statSync(path).mtime
    const [before, after] = [-1, 1].map((days) => new Date(modified.getTime() + days * 86_400_000).toUTCString())
    for (const headers of [
      { 'if-match': '"other"' },
      { 'if-match': `W/${etag}` },
      { 'if-none-match': etag },
      { 'if-none-match': `W/${etag}` },
      { 'if-none-match': '*' },
      { 'if-unmodified-since': before ?? '' },
    ])
      expect([headers, ...(await write(path, 'x', headers))]).toEqual([headers, ...failed])
    expect(readFileSync(path, 'utf8')).toBe('one')
    expect(await write(path, 'two', { 'if-match': `"other", ${etag}` })).toEqual([200, null])
    expect(await write(path, 'x', { 'if-match': etag })).toEqual(failed)
    expect(await write(path, 'three', { 'if-match': '*', 'if-none-match': '"other"' })).toEqual([200, null])
    expect(await write(path, 'four', { 'if-unmodified-since': after ?? '' })).toEqual([200, null])
    expect(readFileSync(path, 'utf8')).toBe('four')
  })

  it('makes a file only where there is none, and lets one of many do so', async () => {
    const dir = fresh('if-none-match')
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, each) => write(`${dir}/new`, `content ${each}`, { 'if-none-match': '*' })),
    )
    expect(answers.map(([status]) => status).sort()).toEqual([200, ...Array(7).fill(412)])
    expect(readFileSync(`${dir}/new`, 'utf8')).toBe(`content ${answers.findIndex(([status]) => status === 200)}`)
    expect(readdirSync(dir)).toEqual(['new'])
  })

  it('lets one of many replace a version, and the others know', async () => {
    const path = join(fresh('one-of-many'), 'file')
    await put(path, 'old')
    const etag = await tagOf(path)
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, each) => write(path, `new ${each}`, { 'if-match': etag })),
    )
    expect(answers.map(([status]) => status).sort()).toEqual([200, ...Array(7).fill(412)])
    expect(readFileSync(path, 'utf8')).toBe(`new ${answers.findIndex(([status]) => status === 200)}`)
  })

  it('judges at the replacement, and cuts no reader off when it is not made', async () => {
    const path = join(fresh('late'), 'file')
    writeFileSync(path, 'old')
    const etag = await tagOf(path)
    const outgoing = begin(path, { ...octets, 'if-match': etag })
    outgoing.write('new')
    await eventually('the upload to be there', async () => {
      const busy = await harness.fetch('/activity').then((answer) => answer.text())
      return JSON.parse(busy).openStreams > 0
    })
    writeFileSync(path, 'by somebody else')
    const answered = new Promise<number | undefined>((resolve) =>
      outgoing.once('response', (answer) => resolve(answer.statusCode)),
    )
    outgoing.end()
    expect(await answered).toBe(412)
    expect(readFileSync(path, 'utf8')).toBe('by somebody else')
  })

  it('is about one file', async () => {
    const response = await harness.fetch('/files', {
      method: 'PUT',
      body: form(['file', 'x', `${harness.dir}/a`]),
      headers: { 'if-none-match': '*' },
    })
    expect(response.status).toBe(400)
    expect(existsSync(`${harness.dir}/a`)).toBe(false)
  })
})

describe('POST /files with a form', () => {
  it('takes one part to the path of the query, with or without a file name', async () => {
    const dir = fresh('one')
    for (const [name, part] of [
      ['named', ['file', 'A', 'ignored.txt']],
      ['plain-field', ['file', 'A']],
    ] as const) {
      const path = `${dir}/${name}`
      const response = await post(form(part), `?path=${encodeURIComponent(path)}`)
      expect([response.status, await response.json()]).toEqual([200, [{ path, name, type: 'file' }]])
      expect(readFileSync(path, 'utf8')).toBe('A')
    }
  })

  it('takes many parts to the paths of their names', async () => {
    const dir = fresh('many')
    const names = ['a', 'deep/er/b', '名/ü.txt', '😀', 'caf\ufffde9']
    const response = await post(form(...names.map((name) => ['file', name, `${dir}/${name}`] as const)))
    expect(response.status).toBe(200)
    expect(JSON.parse(await response.text()).map((each: { path: string }) => each.path)).toEqual(
      names.map((name) => `${dir}/${name}`),
    )
    for (const name of names) expect(readFileSync(pathBytes(`${dir}/${name}`), 'utf8')).toBe(name)
  })

  it('refuses the same path twice, also in other words, and writes none of it', async () => {
    const dir = fresh('twice')
    for (const names of [
      ['x', 'x'],
      ['x', './x'],
      ['x', 'y/../x'],
    ]) {
      const response = await post(form(...names.map((name) => ['file', name, `${dir}/${name}`] as const)))
      expect(response.status).toBe(400)
      expect(JSON.parse(await response.text()).message).toContain('same path')
    }
    const same = await post(form(['file', 'a', 'a'], ['file', 'b', 'b']), `?path=${encodeURIComponent(`${dir}/z`)}`)
    expect(same.status).toBe(400)
    expect(readdirSync(dir).filter((name) => name !== 'y')).toEqual([])
  })

  it('refuses a form without files, a part without a name, and one that is no form', async () => {
    expect((await post(form(['other', 'x']))).status).toBe(400)
    expect((await post(form(['file', 'x']))).status).toBe(400)
    const broken = await harness.fetch('/files?path=/tmp/x', {
      method: 'POST',
      body: 'no form',
      headers: { 'content-type': 'multipart/form-data; boundary=xyz' },
    })
    expect(broken.status).toBe(400)
    const without = await harness.fetch('/files?path=/tmp/x', {
      method: 'POST',
      body: 'no form',
      headers: { 'content-type': 'multipart/form-data' },
    })
    expect(without.status).toBe(400)
  })

  it('refuses a part that is packed, rather than keep it packed', async () => {
    const path = join(harness.dir, 'packed-part')
    const body =
      '--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\ncontent-transfer-encoding: base64\r\n\r\neA==\r\n--b--\r\n'
    const headers = { 'content-type': 'multipart/form-data; boundary=b' }
    expect((await put(path, body, headers)).status).toBe(415)
    expect(existsSync(path)).toBe(false)
  })

  it('decodes a compressed form', async () => {
    const path = join(harness.dir, 'packed-form')
    const body = gzipSync('--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\npacked\r\n--b--\r\n')
    const headers = { 'content-type': 'multipart/form-data; boundary=b', 'content-encoding': 'gzip' }
    expect((await put(path, body, headers)).status).toBe(200)
    expect(readFileSync(path, 'utf8')).toBe('packed')
  })

  it('leaves nothing of a form that breaks off in its second file', async () => {
    const dir = fresh('broken-form')
    const outgoing = begin('', { 'content-type': 'multipart/form-data; boundary=b' })
    const part = (name: string) =>
      `--b\r\ncontent-disposition: form-data; name="file"; filename="${dir}/${name}"\r\n\r\n`
    outgoing.path = '/files'
    outgoing.write(`${part('one')}first\r\n${part('two')}`)
    outgoing.write(Buffer.alloc(2 * MIB, 'x'))
    await eventually('both to begin', () => readdirSync(dir).filter((each) => each.startsWith('.up')).length === 2)
    outgoing.destroy()
    await eventually('all to be cleared away', () => readdirSync(dir).length === 0)
    await eventually('the files to be closed', () => openFilesIn(dir).length === 0)
  })

  it('names what is written already when a later file cannot take its place', async () => {
    const mount = fresh('half-written')
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'wrenn-test-half', mount])
    try {
      writeFileSync(`${mount}/old`, 'old')
      const big = Buffer.alloc(600 * 1024, 'x').toString()
      const answer = await post(form(['file', 'new', `${mount}/new`], ['file', big, `${mount}/old`]))
      expect([answer.status, JSON.parse(await answer.text()).message]).toEqual([
        507,
        expect.stringMatching(new RegExp(`^path '${mount}/old' .*; written before it: '${mount}/new'$`)),
      ])
      expect(readFileSync(`${mount}/old`, 'utf8')).toBe('old')
      expect(readFileSync(`${mount}/new`, 'utf8')).toBe('new')
    } finally {
      execFileSync('umount', [mount])
    }
  })

  it('refuses a form whose second file may not be written, and keeps the first away too', async () => {
    const dir = fresh('half')
    mkdirSync(`${dir}/folder`)
    const big = 'x'.repeat(3 * MIB)
    const response = await post(form(['file', big, `${dir}/one`], ['file', big, `${dir}/folder`]))
    expect(response.status).toBe(400)
    expect(readdirSync(dir)).toEqual(['folder'])
    await eventually('the files to be closed', () => openFilesIn(dir).length === 0)
  })
})

describe('a full disk', () => {
  it('answers 507, leaves nothing, and goes on serving', async () => {
    const mount = fresh('small')
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=1777,nr_inodes=40', 'wrenn-test-small', mount])
    try {
      for (const attempt of [
        () => put(`${mount}/body`, Buffer.alloc(32 * MIB)),
        () => put(`${mount}/gzip`, gzipSync(Buffer.alloc(32 * MIB)), { ...octets, 'content-encoding': 'gzip' }),
        () => post(form(['file', 'x'.repeat(32 * MIB), `${mount}/form`])),
        () => post(form(['file', 'x', `${mount}/a`], ['file', 'x'.repeat(32 * MIB), `${mount}/b`])),
      ]) {
        const response = await attempt()
        expect([response.status, JSON.parse(await response.text()).code]).toEqual([507, 507])
        expect(readdirSync(mount)).toEqual([])
      }
      const kept = Buffer.alloc(2 * MIB, 'kept')
      expect((await put(`${mount}/fits`, kept)).status).toBe(200)
      linkSync(`${mount}/fits`, `${mount}/link`)
      for (const size of [3 * MIB, 8 * MIB]) {
        expect((await put(`${mount}/fits`, Buffer.alloc(size, 'over'))).status).toBe(507)
        expect(readFileSync(`${mount}/link`).equals(kept)).toBe(true)
      }
      expect((await put(`${mount}/fits`, 'x')).status).toBe(200)
      expect(readFileSync(`${mount}/link`, 'utf8')).toBe('x')
      const full = harness.client(Filesystem)
      await expect(
        (async () => {
          for (let i = 0; i < 50; i++) await full.makeDir({ path: `${mount}/d${i}/e` })
        })(),
      ).rejects.toMatchObject({ code: 8 })
    } finally {
      execFileSync('umount', [mount])
    }
  })

  it('without an inode left refuses new files, writes old ones, lists, reads and removes, and is well again then', async () => {
    const mount = fresh('no-inodes')
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m,mode=1777,nr_inodes=20', 'wrenn-test-inodes', mount])
    try {
      for (let made = 0; made < 30; made++) {
        try {
          writeFileSync(`${mount}/${made}`, 'x')
        } catch (error) {
          expect(error).toMatchObject({ code: 'ENOSPC' })
        }
      }
      const refused = await put(`${mount}/new`, 'x')
      expect([refused.status, refused.headers.get(ERROR_CODE_HEADER)]).toEqual([507, 'disk_full'])
      expect((await post(form(['file', 'x', `${mount}/form`]))).status).toBe(507)
      expect((await put(`${mount}/0`, 'small')).status).toBe(200)
      expect(readFileSync(`${mount}/0`, 'utf8')).toBe('small')
      const files = harness.client(Filesystem)
      const { entries } = await files.listDir({ path: mount })
      expect(entries.length).toBe(readdirSync(mount).length)
      expect(await (await harness.fetch(`/files?path=${mount}/0`)).text()).toBe('small')
      await files.remove({ path: `${mount}/1` })
      expect((await put(`${mount}/new`, 'x')).status).toBe(200)
    } finally {
      execFileSync('umount', [mount])
    }
  })
})
