import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { request } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { pathText } from '@wrenn/base'
import { type ArchiveEnd, ArchiveUnframer } from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { AgentHarness, SECRET, TESTER } from '../testing/agent-harness.js'
import { eventually } from '../testing/eventually.js'

let harness: AgentHarness
let dir: string
beforeAll(async () => {
  harness = await AgentHarness.start()
})
beforeEach(() => {
  dir = mkdtempSync(join(harness.dir, 'case-'))
  chmodSync(dir, 0o777)
})
afterAll(() => harness[Symbol.asyncDispose]())

const url = (path: string, user = ''): string => `/archive?path=${encodeURIComponent(path)}&username=${user}`

interface Answer {
  readonly tar: Buffer
  readonly end: ArchiveEnd | undefined
}

async function get(path: string, user = ''): Promise<Answer> {
  const response = await harness.fetch(url(path, user))
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
  const unframer = new ArchiveUnframer()
  const bytes = Buffer.from(await response.arrayBuffer())
  return { tar: Buffer.concat([...unframer.push(bytes)]), end: unframer.end }
}

async function put(path: string, tar: Uint8Array<ArrayBuffer>, user = ''): Promise<{ status: number; text: string }> {
  const response = await harness.fetch(url(path, user), { method: 'POST', body: tar })
  return { status: response.status, text: await response.text() }
}

/** What GNU tar of this machine makes of `args`. */
function tarOf(...args: readonly string[]): Buffer<ArrayBuffer> {
  return Buffer.from(execFileSync('tar', ['--create', '--file=-', ...args], { cwd: dir, maxBuffer: 2 ** 28 }))
}

/** Names, modes, links and times, as tar itself lists them. */
function listing(tar: Buffer): string[] {
  const { stdout, status } = spawnSync('tar', ['--list', '--verbose', '--file=-', '--quoting-style=escape'], {
    input: tar,
    env: { LC_ALL: 'C' },
  })
  expect(status).toBe(0)
  return stdout.toString().trimEnd().split('\n')
}

function unpacked(tar: Buffer): string {
  const target = mkdtempSync(join(harness.dir, 'out-'))
  execFileSync('tar', ['--extract', '--preserve-permissions', '--file=-', '--directory', target], { input: tar })
  return target
}

describe('a long archive', () => {
  it('leaves nothing behind for each time that tar is slower than its sender', async () => {
    const warnings: string[] = []
    const onWarning = ({ name }: Error): void => void warnings.push(name)
    process.on('warning', onWarning)
    try {
      writeFileSync(join(dir, 'long'), Buffer.alloc(24 * 1024 * 1024, 'x'))
      expect((await put(join(dir, 'out'), tarOf('long'))).status).toBe(200)
      expect((await get(join(dir, 'out'))).end).toEqual({ notes: [] })
    } finally {
      process.off('warning', onWarning)
    }
    expect(warnings).toEqual([])
  })
})

describe('GET /archive', () => {
  it('has modes, times, links of both kinds, empty folders and holes', async () => {
    const tree = join(dir, 'tree')
    mkdirSync(join(tree, 'empty'), { recursive: true })
    writeFileSync(join(tree, 'secret'), 's', { mode: 0o600 })
    writeFileSync(join(tree, 'group'), 'g')
    chmodSync(join(tree, 'group'), 0o640)
    utimesSync(join(tree, 'group'), 1_000_000_000.25, 1_000_000_000.25)
    linkSync(join(tree, 'group'), join(tree, 'same'))
    symlinkSync('secret', join(tree, 'to-file'))
    symlinkSync('empty', join(tree, 'to-folder'))
    symlinkSync('/nowhere', join(tree, 'to-nothing'))
    writeFileSync(join(tree, 'sparse'), 'x')
    truncateSync(join(tree, 'sparse'), 2 ** 33 + 4096)
    mkdirSync(join(tree, 'shared'))
    chmodSync(join(tree, 'shared'), 0o3775)
    const { tar, end } = await get(tree)
    expect(end).toEqual({ notes: [] })
    expect(tar.length).toBeLessThan(100_000)
    const out = join(unpacked(tar), 'tree')
    expect(readdirSync(out).sort()).toEqual(readdirSync(tree).sort())
    for (const name of readdirSync(tree)) {
      const [was, is] = [lstatSync(join(tree, name)), lstatSync(join(out, name))]
      expect([name, is.mode, is.mtimeMs, is.size]).toEqual([name, was.mode, was.mtimeMs, was.size])
    }
    expect(statSync(join(out, 'same')).ino).toBe(statSync(join(out, 'group')).ino)
    expect(readlinkSync(join(out, 'to-nothing'))).toBe('/nowhere')
  })

  it('has names of any bytes, deep trees and paths longer than the kernel takes', async () => {
    const odd = Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0x63, 0xe9, 0xfe, 0x0a, 0x5c])])
    mkdirSync(odd)
    writeFileSync(Buffer.concat([odd, Buffer.from([0x2f, 0xff])]), 'odd')
    const { tar, end } = await get(pathText(odd))
    expect(end).toEqual({ notes: [] })
    const out = unpacked(tar)
    expect(
      readFileSync(
        Buffer.concat([Buffer.from(`${out}/`), odd.subarray(dir.length + 1), Buffer.from([0x2f, 0xff])]),
        'utf8',
      ),
    ).toBe('odd')
    const steps = 'mkdir "deep"; chdir "deep"; for (1..60) { mkdir "n" x 100; chdir "n" x 100 } open(my $f, ">", "end")'
    execFileSync('perl', ['-e', steps], { cwd: dir })
    const archive = await get(join(dir, 'deep'))
    expect(archive.end).toEqual({ notes: [] })
    expect(listing(archive.tar).at(-1)).toMatch(/n\/end$/)
    execFileSync('rm', ['-rf', join(dir, 'deep')])
  })

  it('takes a link as a link, and follows it when a slash says so', async () => {
    mkdirSync(join(dir, 'real'))
    writeFileSync(join(dir, 'real/file'), '')
    symlinkSync('real', join(dir, 'link'))
    expect(listing((await get(join(dir, 'link'))).tar)).toEqual([expect.stringMatching(/^l.* link -> real$/)])
    expect(listing((await get(`${dir}/link/`)).tar).map((line) => line.split(' ').at(-1))).toEqual([
      'real/',
      'real/file',
    ])
  })

  it('says at once what cannot be read, and at the end what lay among the rest', async () => {
    writeFileSync(join(dir, 'closed'), '', { mode: 0o600 })
    writeFileSync(join(dir, 'open'), 'yes')
    await expect(get(join(dir, 'missing'))).rejects.toThrow(/^404 /)
    await expect(get(join(dir, 'open/below'))).rejects.toThrow(/^400 /)
    await expect(get(join(dir, 'closed'), TESTER.name)).rejects.toThrow(/^403 /)
    await expect(get(dir, 'nobody-there')).rejects.toThrow(/^401 /)
    const { tar, end } = await get(dir, TESTER.name)
    expect(end?.error).toMatchObject({
      code: 'permission_denied',
      message: expect.stringContaining('closed: Cannot open'),
    })
    expect(listing(tar).map((line) => line.split('/').at(-1))).toEqual(['', 'open'])
  })

  it('names the sockets it leaves out', async () => {
    const server = createServer().listen(join(dir, 'socket'))
    await new Promise((resolve) => server.once('listening', resolve))
    const { end } = await get(dir)
    expect(end).toEqual({ notes: [expect.stringMatching(/socket: socket ignored$/)] })
    await new Promise((resolve) => server.close(resolve))
  })

  it('says when a file became shorter while it was read', async () => {
    const path = join(dir, 'shrinking')
    writeFileSync(path, Buffer.alloc(16 * 2 ** 20, 1))
    const unframer = new ArchiveUnframer()
    await new Promise<void>((resolve, reject) => {
      const options = { port: harness.agent.port, path: url(path), headers: { 'x-wrenn-secret': SECRET } }
      request(options, async (response) => {
        truncateSync(path, 4096)
        for await (const chunk of response) Array.from(unframer.push(chunk))
        resolve()
      })
        .once('error', reject)
        .end()
    })
    expect(unframer.end?.error).toMatchObject({ code: 'conflict', message: expect.stringContaining('shrinking') })
  })

  it('ends its tar when the client goes away', async () => {
    writeFileSync(join(dir, 'large'), '')
    truncateSync(join(dir, 'large'), 2 ** 30)
    writeFileSync(join(dir, 'data'), Buffer.alloc(64 * 2 ** 20, 1))
    const options = { port: harness.agent.port, path: url(dir), headers: { 'x-wrenn-secret': SECRET } }
    await new Promise<void>((resolve) => {
      const call = request(options, (response) => response.once('data', () => call.destroy())).once('close', resolve)
      call.on('error', () => {}).end()
    })
    await eventually('tar to end', () => tarsOf(process.pid).length === 0)
  })
})

/** Command lines of the children of `pid` that are tars. */
function tarsOf(pid: number): string[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean)
  const lines = children.map((child) => spawnSync('cat', [`/proc/${child}/cmdline`]).stdout.toString())
  return lines.filter((line) => line.startsWith('tar\0'))
}

describe('POST /archive', () => {
  it('unpacks with the modes it says and as the user, making the folder', async () => {
    mkdirSync(join(dir, 'in/locked'), { recursive: true })
    writeFileSync(join(dir, 'in/locked/file'), 'locked', { mode: 0o400 })
    chmodSync(join(dir, 'in/locked'), 0o555)
    chownSync(join(dir, 'in/locked/file'), 12_345, 12_345)
    const answer = await put(join(dir, 'new/folder'), tarOf('in'), TESTER.name)
    expect(answer).toEqual({ status: 200, text: expect.stringContaining('"bytes":10240') })
    const file = statSync(join(dir, 'new/folder/in/locked/file'))
    expect([file.mode & 0o7777, file.uid, file.gid]).toEqual([0o400, TESTER.uid, TESTER.gid])
    expect(statSync(join(dir, 'new/folder/in/locked')).mode & 0o7777).toBe(0o555)
    expect(statSync(join(dir, 'new')).uid).toBe(TESTER.uid)
    expect((await put(join(dir, 'root'), tarOf('in'))).status).toBe(200)
    expect(statSync(join(dir, 'root/in/locked/file')).uid).toBe(0)
  })

  it('stays in its folder, whatever names the archive has', async () => {
    writeFileSync(join(dir, 'payload'), 'payload')
    const name = (to: string): Buffer<ArrayBuffer> =>
      tarOf('--absolute-names', `--transform=s,payload,${to},`, 'payload')
    await put(join(dir, 'a/b'), name('../../escaped'))
    await put(join(dir, 'a/b'), name(`${dir}/escaped`))
    expect(existsSync(join(dir, 'escaped'))).toBe(false)
  })

  it('cannot write where the user may not', async () => {
    const outside = join(dir, 'roots-own')
    mkdirSync(outside)
    writeFileSync(join(dir, 'payload'), 'payload')
    symlinkSync(outside, join(dir, 'way-out'))
    const through = tarOf('way-out', '--transform=s,^payload,way-out/payload,', 'payload')
    const target = join(dir, 'target')
    expect((await put(target, through, TESTER.name)).status).not.toBe(200)
    expect(readdirSync(outside)).toEqual([])
    expect((await put(outside, tarOf('payload'), TESTER.name)).status).toBe(403)
    expect((await put(join(outside, 'new'), tarOf('payload'), TESTER.name)).status).toBe(403)
  })

  it('goes on into a folder that is a link, instead of replacing the link', async () => {
    mkdirSync(join(dir, 'in/lib'), { recursive: true })
    writeFileSync(join(dir, 'in/lib/new'), '')
    mkdirSync(join(dir, 'usr-lib'))
    symlinkSync('usr-lib', join(dir, 'lib'))
    expect((await put(dir, tarOf('-C', 'in', 'lib'))).status).toBe(200)
    expect(lstatSync(join(dir, 'lib')).isSymbolicLink()).toBe(true)
    expect(existsSync(join(dir, 'usr-lib/new'))).toBe(true)
  })

  it.each([
    ['what is no archive', () => Buffer.alloc(20_000, 'no'), 'tar archive'],
    ['nothing', () => Buffer.alloc(0), 'tar archive'],
    ['an archive cut inside a file', () => tarOf('a').subarray(0, 700), 'Unexpected EOF'],
    ['an archive cut between two files', () => tarOf('a').subarray(0, 1024), 'no end'],
  ])('refuses %s', async (_, make, words) => {
    writeFileSync(join(dir, 'a'), 'content')
    const { status, text } = await put(join(dir, 'out'), make())
    expect([status, text]).toEqual([400, expect.stringContaining(words)])
  })

  it('says which file could not be put in place, having done the others', async () => {
    mkdirSync(join(dir, 'in'))
    for (const name of ['a', 'b', 'c']) writeFileSync(join(dir, 'in', name), name)
    const tar = tarOf('-C', 'in', 'a', 'b', 'c')
    mkdirSync(join(dir, 'out/b/full'), { recursive: true })
    const { status, text } = await put(join(dir, 'out'), tar)
    expect([status, text]).toEqual([409, expect.stringContaining('b: Cannot open')])
    expect(readFileSync(join(dir, 'out/c'), 'utf8')).toBe('c')
  })

  it('ends its tar when the client goes away in the middle', async () => {
    writeFileSync(join(dir, 'a'), Buffer.alloc(2 ** 20))
    const options = {
      method: 'POST',
      port: harness.agent.port,
      path: url(join(dir, 'out')),
      headers: { 'x-wrenn-secret': SECRET },
    }
    const call = request(options).on('error', () => {})
    call.write(tarOf('a').subarray(0, 300_000))
    await eventually('tar to work', () => tarsOf(process.pid).length === 1)
    call.destroy()
    await eventually('tar to end', () => tarsOf(process.pid).length === 0)
  })

  it('is for clients with a key, by GET and POST', async () => {
    const headers = { 'x-wrenn-secret': '' }
    expect((await harness.fetch(url(dir), { headers })).status).toBe(401)
    expect((await harness.fetch(url(dir), { method: 'PUT', body: 'x' })).status).toBe(405)
  })
})
