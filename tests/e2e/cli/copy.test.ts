import { execFile } from 'node:child_process'
import {
  chmod,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { type CommandResult, wrenn } from '../harness/platform.js'

const { platform } = usePlatform()
const capsule = useCapsule()
const run = promisify(execFile)
const cp = (...args: string[]): Promise<CommandResult> => wrenn(platform, ['capsule', 'cp', ...args])
const remote = (path: string): string => `${capsule().id}:${path}`
let scratch: string

/** Type, mode, hard links, time, size and target of everything in a tree. */
const FACTS =
  "find . -mindepth 1 ! -type d -printf '%P|%y|%m|%n|%Ts|%s|%l\\n' -o -mindepth 1 -printf '%P|d|%m|%Ts\\n' | LC_ALL=C sort"

async function localFacts(path: string): Promise<string> {
  return (await run('sh', ['-c', FACTS], { cwd: path, encoding: 'latin1' })).stdout.trim()
}

async function capsuleFacts(path: string): Promise<string> {
  const text = await capsule().text(`cd ${path} && { ${FACTS}; } | base64 -w0`)
  return Buffer.from(text, 'base64').toString('latin1').trim()
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'we2e-copy-'))
  const tree = join(scratch, 'tree')
  await mkdir(join(tree, 'empty'), { recursive: true })
  for (const mode of [0o755, 0o600, 0o640, 0o644]) {
    await writeFile(join(tree, mode.toString(8)), mode.toString(8))
    await chmod(join(tree, mode.toString(8)), mode)
  }
  await link(join(tree, '640'), join(tree, 'same'))
  await symlink('600', join(tree, 'to-file'))
  await symlink('empty', join(tree, 'to-folder'))
  await symlink('/nowhere', join(tree, 'to-nothing'))
  await writeFile(Buffer.concat([Buffer.from(`${tree}/odd-`), Buffer.from([0xe9, 0xfe, 0xff])]), 'odd')
  await writeFile(join(tree, 'sparse'), 'x')
  await truncate(join(tree, 'sparse'), 2 ** 26)
  await mkdir(join(tree, 'locked'))
  await writeFile(join(tree, 'locked/file'), '')
  await chmod(join(tree, 'locked'), 0o3555)
})
afterAll(async () => {
  await rm(scratch, { recursive: true, force: true })
})

describe('wrenn capsule cp -r', () => {
  it('keeps modes, times, links of both kinds and names of any bytes, there and back', async () => {
    expect(await cp('-r', join(scratch, 'tree'), remote('/root'))).toMatchObject({ code: 0, stderr: '' })
    expect(await capsuleFacts('/root/tree')).toBe(await localFacts(join(scratch, 'tree')))
    expect(await capsule().text('du -k /root/tree/sparse | cut -f1')).toMatch(/^\d{1,3}$/)
    expect(await cp('-r', remote('/root/tree'), join(scratch, 'back'))).toMatchObject({ code: 0, stderr: '' })
    expect(await localFacts(join(scratch, 'back'))).toBe(await localFacts(join(scratch, 'tree')))
  })

  it('goes into a directory, as a new name, or as the parts of one', async () => {
    await capsule().text('mkdir -p /srv/from/sub && echo a > /srv/from/a')
    const at = (name: string): string => join(scratch, name)
    await mkdir(at('dir'))
    for (const [source, target] of [
      ['/srv/from', at('dir')],
      ['/srv/from', at('new')],
      ['/srv/from/.', at('dir/parts')],
    ] as const)
      expect((await cp('-r', remote(source), target)).code).toBe(0)
    expect((await readdir(at('dir'))).sort()).toEqual(['from', 'parts'])
    for (const name of ['dir/from', 'new', 'dir/parts']) expect((await readdir(at(name))).sort()).toEqual(['a', 'sub'])
    expect((await cp('-r', `${at('new')}/.`, remote('/srv/into'))).code).toBe(0)
    expect((await cp('-r', at('new'), remote('/srv/made/as'))).code).toBe(0)
    expect(await capsule().text('cd /srv; ls into made/as | tr "\\n" " "')).toBe('into: a sub  made/as: a sub')
  })

  it('copies what it can, names the rest and fails', async () => {
    await capsule().text(
      'mkdir /srv/mixed && cd /srv/mixed && echo s > closed && chmod 600 closed && echo o > open && chmod 755 .',
    )
    const result = await cp('-r', '--user', 'user', remote('/srv/mixed'), join(scratch, 'mixed'))
    expect(result).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/closed: Cannot open[\s\S]*permission_denied/),
    })
    expect(await readdir(join(scratch, 'mixed'))).toEqual(['open'])
    const refused = await cp('-r', '--user', 'user', join(scratch, 'mixed'), remote('/srv/refused'))
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('permission_denied') })
  })

  it('names sockets and leaves them out', async () => {
    await capsule().text(
      'mkdir /srv/special && python3 -c \'import socket; socket.socket(socket.AF_UNIX).bind("/srv/special/socket")\'',
    )
    const result = await cp('-r', remote('/srv/special'), join(scratch, 'special'))
    expect(result).toMatchObject({ code: 0, stderr: expect.stringContaining('socket: socket ignored') })
  })

  it('names each file in JSON', async () => {
    await capsule().text('mkdir /srv/json && printf 12345 > /srv/json/five')
    const { stdout } = await cp('-r', '--json', remote('/srv/json'), join(scratch, 'json'))
    expect(JSON.parse(stdout)).toEqual({ files: [{ path: join(scratch, 'json/five'), size_bytes: 5 }] })
  })
})

describe('wrenn capsule cp of one file', () => {
  it('keeps its mode both ways and follows a link', async () => {
    expect((await cp(join(scratch, 'tree/to-file'), remote('/root/one'))).code).toBe(0)
    expect(await capsule().text('stat -c "%a %F" /root/one')).toBe('600 regular file')
    await capsule().text('ln -s one /root/link')
    expect((await cp(remote('/root/link'), join(scratch, 'one'))).code).toBe(0)
    expect((await stat(join(scratch, 'one'))).mode & 0o777).toBe(0o600)
    expect(await readFile(join(scratch, 'one'), 'utf8')).toBe('600')
    expect((await cp(remote('/root/one'), '/dev/null')).code).toBe(0)
    expect((await stat('/dev/null')).isCharacterDevice()).toBe(true)
  })

  it('wants -r for a directory', async () => {
    expect(await cp(remote('/root'), scratch)).toMatchObject({ code: 1, stderr: expect.stringContaining('give -r') })
  })
})
