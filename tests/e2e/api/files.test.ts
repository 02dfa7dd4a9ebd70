import { createHash, randomBytes } from 'node:crypto'
import type { FileEntry, FileEntryAnswer, FileList } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { useCapsule } from '../harness/api.js'

const capsule = useCapsule()

async function list(path: string, depth = 1): Promise<FileEntry[]> {
  return (await capsule().file<FileList>('list', { path, depth })).entries
}

async function stat(path: string): Promise<FileEntry> {
  return (await capsule().file<FileEntryAnswer>('stat', { path })).entry
}

async function refusal(verb: string, json: object) {
  return await capsule().api.refusal('POST', `${capsule().path}/files/${verb}`, { json })
}

describe('files', () => {
  it('come back as they were written, in folders made for them', async () => {
    const content = randomBytes(70_000)
    const written = await capsule().write('/root/new/deep/er/file.bin', content)
    expect(written.json()).toEqual({ path: '/root/new/deep/er/file.bin', bytes: content.length })
    const read = await capsule().read('/root/new/deep/er/file.bin')
    expect(read.bytes.equals(content)).toBe(true)
    const form = await capsule().api.call('POST', `${capsule().path}/files/read`, {
      json: { path: '/root/new/deep/er/file.bin', offset: 100, length: 50 },
    })
    expect(form.bytes.equals(content.subarray(100, 150))).toBe(true)
  })

  it('may be written as a form, replaced, and be empty', async () => {
    const form = new FormData()
    form.set('path', '/root/form.txt')
    form.set('file', new Blob(['first, and longer']), 'ignored.txt')
    const answer = await capsule().api.call('POST', `${capsule().path}/files/write`, { body: form })
    expect(answer.status).toBe(204)
    expect((await capsule().read('/root/form.txt')).bytes.toString()).toBe('first, and longer')
    await capsule().write('/root/form.txt', 'second')
    expect((await capsule().read('/root/form.txt')).bytes.toString()).toBe('second')
    await capsule().write('/root/form.txt', '')
    expect((await capsule().read('/root/form.txt')).bytes.length).toBe(0)
    expect((await stat('/root/form.txt')).size).toBe(0)
  })

  it.each([
    ['spaces', ' two  spaces '],
    ['a newline', 'line\nbreak'],
    ['UTF-8', 'grüße-日本-🐦'],
    ['quotes and signs', `'"$(x);&|<>*?#%2F+\\`],
    ['a dash in front', '-rf'],
    ['255 bytes', `${'ß'.repeat(127)}x`],
  ])('may have names with %s', async (_, name) => {
    const path = `/root/names/${name}`
    expect((await capsule().write(path, `content of ${name}`)).status).toBe(200)
    expect((await list('/root/names')).map((entry) => entry.name)).toContain(name)
    expect(await stat(path)).toMatchObject({ name, path, type: 'file' })
    expect((await capsule().read(path)).bytes.toString()).toBe(`content of ${name}`)
    const moved = `${[...path].slice(0, -1).join('')}~` // by characters: half of one is no Unicode
    await capsule().file('move', { source: path, destination: moved })
    await capsule().file('remove', { path: moved })
    expect((await list('/root/names')).map((entry) => entry.name)).not.toContain(name)
  })

  it('may be ten thousand in one directory', async () => {
    const program = [
      'import os',
      "os.mkdir('/root/many')",
      "for i in range(10000): os.close(os.open(f'/root/many/file-{i:05}', os.O_CREAT | os.O_WRONLY))",
    ]
    await capsule().exec('python3', ['-c', program.join('\n')], { timeout_sec: 120 })
    const names = (await list('/root/many')).map(({ name }) => name).sort()
    expect(names).toHaveLength(10_000)
    expect(names[0]).toBe('file-00000')
    expect(names.at(-1)).toBe('file-09999')
  })

  it('are listed to the depth that is asked for', async () => {
    await capsule().text('mkdir -p /root/tree/a/b/c && touch /root/tree/top /root/tree/a/b/c/leaf')
    const paths = async (depth: number): Promise<string[]> =>
      (await list('/root/tree', depth)).map(({ path }) => path).sort()
    expect(await paths(1)).toEqual(['/root/tree/a', '/root/tree/top'])
    expect(await paths(2)).toEqual(['/root/tree/a', '/root/tree/a/b', '/root/tree/top'])
    expect(await paths(9)).toContain('/root/tree/a/b/c/leaf')
  })

  it('answer byte ranges', async () => {
    await capsule().write('/root/ranged', '0123456789')
    const range = async (value: string) => await capsule().read('/root/ranged', { range: value })
    for (const [asked, text, contentRange] of [
      ['bytes=2-5', '2345', 'bytes 2-5/10'],
      ['bytes=7-', '789', 'bytes 7-9/10'],
      ['bytes=-3', '789', 'bytes 7-9/10'],
      ['bytes=0-99', '0123456789', 'bytes 0-9/10'],
    ] as const) {
      const answer = await range(asked)
      expect([answer.status, answer.bytes.toString(), answer.headers.get('content-range')]).toEqual([
        206,
        text,
        contentRange,
      ])
    }
    const beyond = await range('bytes=10-')
    expect([beyond.status, beyond.headers.get('content-range')]).toEqual([416, 'bytes */10'])
    const head = await capsule().api.call('HEAD', `${capsule().path}/files`, { query: { path: '/root/ranged' } })
    expect([head.status, head.headers.get('content-length')]).toEqual([200, '10'])
  })

  it('that are missing answer 404, and directories say what they are', async () => {
    const read = { query: { path: '/root/missing' } }
    const missing = { status: 404, code: 'file_not_found' }
    expect(await capsule().api.refusal('GET', `${capsule().path}/files`, read)).toMatchObject(missing)
    for (const verb of ['read', 'stat', 'list']) {
      expect(await refusal(verb, { path: '/root/missing' })).toMatchObject(missing)
    }
    expect(await refusal('move', { source: '/root/missing', destination: '/root/x' })).toMatchObject(missing)
    // Removing is done when the thing is not there, whoever did it.
    await capsule().file('remove', { path: '/root/missing' })
    const directory = { status: 400, code: 'is_a_directory' }
    expect(await capsule().api.refusal('GET', `${capsule().path}/files`, { query: { path: '/root' } })).toMatchObject(
      directory,
    )
    expect(await refusal('read', { path: '/root' })).toMatchObject(directory)
    const put = await capsule().write('/root', 'x')
    expect(put.json()).toMatchObject({ error: { code: 'is_a_directory' } })
    await capsule().write('/root/plain', 'x')
    expect(await refusal('list', { path: '/root/plain' })).toMatchObject({ status: 400, code: 'not_a_directory' })
  })

  it('are made, moved, described and removed', async () => {
    await capsule().file('mkdir', { path: '/root/made/inner' })
    expect(await refusal('mkdir', { path: '/root/made/inner' })).toMatchObject({ status: 409, code: 'conflict' })
    await capsule().write('/root/made/inner/file', 'moved')
    const { entry } = await capsule().file<FileEntryAnswer>('move', {
      source: '/root/made',
      destination: '/root/elsewhere',
    })
    expect(entry).toMatchObject({ name: 'elsewhere', type: 'directory', path: '/root/elsewhere' })
    expect((await capsule().read('/root/elsewhere/inner/file')).bytes.toString()).toBe('moved')
    await capsule().text('chmod 640 /root/elsewhere/inner/file && ln -s inner/file /root/elsewhere/link')
    expect(await stat('/root/elsewhere/inner/file')).toMatchObject({
      type: 'file',
      size: 5,
      mode: 0o640,
      permissions: expect.stringContaining('rw-r-----'),
      owner: 'root',
      group: 'root',
    })
    expect(await stat('/root/elsewhere/link')).toMatchObject({ type: 'symlink', target_type: 'file' })
    await capsule().file('remove', { path: '/root/elsewhere' })
    expect(await refusal('stat', { path: '/root/elsewhere' })).toMatchObject({ status: 404, code: 'file_not_found' })
  })

  it('belong to the user who writes them, and keep strangers out', async () => {
    await capsule().write('owned/by/me.txt', 'mine', { user: 'user' })
    expect(await stat('/home/user/owned/by/me.txt')).toMatchObject({ owner: 'user', group: 'user' })
    expect(await stat('/home/user/owned')).toMatchObject({ owner: 'user', group: 'user' })
    const secret = { path: '/etc/shadow', user: 'user' }
    expect(await refusal('read', secret)).toMatchObject({ status: 403, code: 'permission_denied' })
    const put = await capsule().write('/etc/forbidden', 'x', { user: 'user' })
    expect(put.json()).toMatchObject({ error: { code: 'permission_denied' } })
    expect(await refusal('read', { path: '/etc/passwd', user: 'nobody-here' })).toMatchObject({
      status: 400,
      code: 'invalid_request',
    })
  })

  it('of 64 MiB go up and down without a changed byte', async () => {
    const content = randomBytes(64 * 2 ** 20)
    const digest = createHash('sha256').update(content).digest('hex')
    expect((await capsule().write('/root/big', content)).json()).toMatchObject({ bytes: content.length })
    expect(await capsule().text('sha256sum < /root/big', { timeout_sec: 120 })).toContain(digest)
    const { bytes } = await capsule().read('/root/big')
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(digest)
    await capsule().file('remove', { path: '/root/big' })
  })

  it('that do not fit say disk_full and leave nothing half-written', async () => {
    const full = await capsule().api.create({ disk_size_mb: 64 })
    try {
      const answer = await full.write('/root/too-big', Buffer.alloc(80 * 2 ** 20))
      expect(answer.json()).toMatchObject({ error: { code: 'disk_full' } })
      expect(answer.status).toBe(507)
      expect(await full.text('ls -A /root | grep -c too-big || true')).toBe('0')
      expect((await full.write('/root/small', Buffer.alloc(1024))).status).toBe(200)
    } finally {
      await full.destroy()
    }
  })
})
