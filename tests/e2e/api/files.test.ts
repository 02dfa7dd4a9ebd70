import { createHash, randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import type { FileEntry, FileEntryAnswer, FileList } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { useCapsule } from '../harness/api.js'
import { eventually } from '../harness/wait.js'

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
    ['a byte order mark in front', '\ufeffmarked'],
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

  it('may have names that are not UTF-8, given by their text or byte by byte in a URL', async () => {
    const { api, path: base } = capsule()
    const raw = `${base}/files?path=/root/raw/%FE-caf%E9`
    const text = '/root/raw/\ufffdfe-caf\ufffde9'
    expect((await api.call('PUT', raw, { body: 'odd' })).json()).toEqual({ path: text, bytes: 3 })
    expect(await capsule().text('ls /root/raw | od -An -c')).toMatch(/^ *376 +- +c +a +f +351 +\\n$/)
    expect((await api.call('GET', raw)).bytes.toString()).toBe('odd')
    expect((await capsule().read(text)).bytes.toString()).toBe('odd')
    expect((await list('/root/raw')).map(({ path }) => path)).toEqual([text])
    const other = await api.refusal('GET', `${base}/files?path=/root/raw/%FF-caf%E9`)
    expect(other).toMatchObject({ status: 404, code: 'file_not_found' })
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

  it('are sent in part only of the version that is named', async () => {
    const path = '/root/versioned'
    await capsule().write(path, 'first version')
    const etag = await eventually(
      'the file to have a tag',
      async () => (await capsule().read(path)).headers.get('etag') ?? undefined,
    )
    const part = async (condition: string) => {
      const answer = await capsule().read(path, { range: 'bytes=0-4', 'if-range': condition })
      return [answer.status, answer.bytes.toString()]
    }
    const modified = String((await capsule().read(path)).headers.get('last-modified'))
    expect(await part(etag)).toEqual([206, 'first'])
    expect((await capsule().read(path, { 'if-none-match': etag })).status).toBe(304)
    expect((await capsule().read(path, { 'if-match': '"other"' })).status).toBe(412)
    await capsule().write(path, 'second version')
    for (const stale of [etag, `W/${etag}`, modified, new Date(0).toUTCString()])
      expect([stale, await part(stale)]).toEqual([stale, [200, 'second version']])
  })

  it('are replaced only where they are the version that is named, and made only where there is none', async () => {
    const path = '/root/conditional'
    const put = async (content: string, headers: Record<string, string>): Promise<number> =>
      (await capsule().write(path, content, {}, headers)).status
    expect(await put('x', { 'if-match': '*' })).toBe(412)
    const [...made] = await Promise.all([1, 2, 3].map((each) => put(`first ${each}`, { 'if-none-match': '*' })))
    expect(made.sort()).toEqual([200, 412, 412])
    const etag = await eventually(
      'the file to have a tag',
      async () => (await capsule().read(path)).headers.get('etag') ?? undefined,
    )
    const replaced = await Promise.all([1, 2, 3].map((each) => put(`second ${each}`, { 'if-match': etag })))
    expect([...replaced].sort()).toEqual([200, 412, 412])
    expect((await capsule().read(path)).bytes.toString()).toBe(`second ${replaced.indexOf(200) + 1}`)
  })

  it('of the kernel are what cat gives, whole and in parts', async () => {
    for (const path of ['/proc/version', '/proc/sys/kernel/random/boot_id', '/sys/class/net/lo/mtu']) {
      const text = `${await capsule().text(`cat ${path}`)}\n`
      const raw = await capsule().read(path)
      expect([raw.status, raw.bytes.toString(), raw.headers.get('content-length')]).toEqual([
        200,
        text,
        `${text.length}`,
      ])
      for (const verb of ['read', 'stream/read']) {
        const read = await capsule().api.call('POST', `${capsule().path}/files/${verb}`, { json: { path } })
        expect([read.status, read.bytes.toString()]).toEqual([200, text])
      }
      const part = await capsule().read(path, { range: 'bytes=1-3' })
      expect([part.status, part.bytes.toString()]).toEqual([206, text.slice(1, 4)])
      const head = await capsule().api.call('HEAD', `${capsule().path}/files`, { query: { path } })
      expect(head.headers.get('content-length')).toBe(`${text.length}`)
    }
    const long = await capsule().text('wc -c < /proc/kallsyms')
    expect((await capsule().read('/proc/kallsyms')).bytes.length).toBe(Number(long))
  })

  it('are unpacked when they come as gzip, and refused when they come packed otherwise', async () => {
    const put = async (coding: string) =>
      await capsule().api.call('PUT', `${capsule().path}/files`, {
        query: { path: '/root/packed' },
        body: gzipSync('plain'),
        headers: { 'content-encoding': coding },
      })
    expect((await put('gzip')).json()).toMatchObject({ bytes: 5 })
    expect(await capsule().text('cat /root/packed')).toBe('plain')
    for (const coding of ['br', 'gzip, gzip']) expect((await put(coding)).status).toBe(415)
  })

  it('keep owner, group, mode, attributes and links when their content is replaced', async () => {
    const set = 'cd /home/user && echo old > kept && chown user:user kept && chmod 660 kept && ln kept link'
    await capsule().text(`${set} && python3 -c 'import os; os.setxattr("kept", "user.origin", b"here")'`)
    const state = async () =>
      await capsule().text(
        `cd /home/user && stat -c '%U %G %a %h %i' kept && python3 -c 'import os; print(os.getxattr("kept", "user.origin"))'`,
      )
    const before = await state()
    expect((await capsule().write('/home/user/kept', 'new')).status).toBe(200)
    expect(await state()).toBe(before)
    expect(await capsule().text('cat /home/user/link', { user: 'user' })).toBe('new')
  })

  it('whose names are not UTF-8 are told apart and reached', async () => {
    await capsule().text(
      `mkdir -p /root/odd && cd /root/odd && printf one > "$(printf '\\376')" && printf two > "$(printf '\\377')"`,
    )
    const entries = await list('/root/odd')
    expect(entries.map(({ name }) => name)).toEqual(['\ufffdfe', '\ufffdff'])
    const texts = await Promise.all(entries.map(async ({ path }) => (await capsule().read(path)).bytes.toString()))
    expect(texts).toEqual(['one', 'two'])
    expect(await stat('/root/odd/\ufffdff')).toMatchObject({ size: 3 })
    await capsule().write('/root/odd/\ufffdff', 'written')
    await capsule().file('move', { source: '/root/odd/\ufffdff', destination: '/root/odd/\ufffde9/\ufffdc3' })
    expect(await capsule().text(`cat "/root/odd/$(printf '\\351/\\303')"`)).toBe('written')
    await capsule().file('remove', { path: '/root/odd/\ufffdfe' })
    expect((await list('/root/odd')).map(({ name }) => name)).toEqual(['\ufffde9'])
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

  it('can be read, listed, replaced and removed when no inode is left, and new ones say disk_full until then', async () => {
    const full = await capsule().api.create({ disk_size_mb: 64 })
    try {
      await full.write('/root/there', 'old')
      const fill =
        'import os\ntry:\n  [os.close(os.open(f"/root/many/{i}", os.O_CREAT)) for i in range(10**7)]\nexcept OSError as e: print(e.errno)'
      await full.text(`mkdir /root/many && python3 -c '${fill}'`)
      expect((await full.write('/root/new', 'x')).json()).toMatchObject({ error: { code: 'disk_full' } })
      expect((await full.read('/root/there')).bytes.toString()).toBe('old')
      expect((await full.write('/root/there', 'new')).status).toBe(200)
      expect((await full.file<FileList>('list', { path: '/root', depth: 1 })).entries.length).toBeGreaterThan(1)
      await full.file('remove', { path: '/root/many' })
      expect((await full.write('/root/new', 'x')).status).toBe(200)
    } finally {
      await full.destroy()
    }
  })
})
