import { gzipSync } from 'node:zlib'
import type { Capsule, ErrorBody, ExecResult, FileList } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, type Platform, startPlatform } from './testing/harness.js'

let platform: Platform
let capsule: Capsule
const at = (path: string): string => `/v1/capsules/${capsule.id}${path}`

beforeAll(async () => {
  platform = await startPlatform()
  capsule = await platform.create({ name: 'first', labels: { app: 'web' }, envs: { GREETING: 'hello' } })
}, 60_000)
afterAll(async () => {
  await platform[Symbol.asyncDispose]()
})

async function exec(body: object): Promise<ExecResult> {
  return await json<ExecResult>(await platform.call('POST', at('/exec'), body), 200)
}

async function errorCode(response: Response, status: number): Promise<string> {
  const body = await json<{ error: { code: string; requestId: string } }>(response, status)
  expect(body.error.requestId).toMatch(/^req-/)
  return body.error.code
}

describe('capsules', () => {
  it('run when they were created, say how, and keep environment values to themselves', () => {
    expect(capsule).toMatchObject({
      status: 'running',
      state: 'running',
      name: 'first',
      template: 'minimal',
      vcpus: 1,
      memory_mb: 512,
      labels: { app: 'web' },
      engine: 'fake',
      path: 'hot',
      timings: [{ step: 'claim', ms: 0.5 }],
    })
    expect(capsule.created_at).toMatch(/Z$/)
    expect(JSON.stringify(capsule)).not.toContain('hello')
  })

  it('are created from an empty body', async () => {
    const response = await fetch(`${platform.url}/v1/capsules`, {
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json' },
    })
    const created = await json<Capsule>(response, 201)
    await platform.call('DELETE', `/v1/capsules/${created.id}`)
  })

  it('refuse what is above a limit, by name of the field and the knob', async () => {
    const response = await platform.call('POST', '/v1/capsules', { vcpus: 9 })
    const { error } = await json<{ error: { message: string } }>(response, 400)
    expect(error.message).toContain('vcpus')
    expect(error.message).toContain('WRENN_MAX_VCPUS')
  })

  it('refuse memory that no guest comes up with, and name the least', async () => {
    const response = await platform.call('POST', '/v1/capsules', { memory_mb: 64 })
    const { error } = await json<ErrorBody>(response, 400)
    expect(error).toMatchObject({ code: 'invalid_request', message: expect.stringMatching(/memory_mb.*128/) })
  })

  it('refuse a field that does not exist, by its name, with the one that was meant', async () => {
    const wrong: [path: string, body: object, named: string, instead: string][] = [
      ['/v1/capsules', { timeout_secs: 60 }, 'timeout_secs', 'did you mean timeout_sec?'],
      ['/v1/capsules', { memoryMb: 512 }, 'memoryMb', 'did you mean memory_mb?'],
      ['/v1/capsules', { egress: { internt: false } }, 'egress.internt', 'did you mean internet?'],
      [at('/exec'), { cmd: 'true', atomics: true }, 'atomics', 'did you mean atomic?'],
      [at('/fork'), { copies: 2 }, 'copies', 'the fields are count, name, labels, envs, timeout_sec, checkpoint'],
      [at('/files/read'), { path: '/etc/hostname', lenght: 1 }, 'lenght', 'did you mean length?'],
      ['/v1/snapshots', { capsule_id: capsule.id, nmae: 'x' }, 'nmae', 'did you mean name?'],
    ]
    for (const [path, body, named, instead] of wrong) {
      const { error } = await json<ErrorBody>(await platform.call('POST', path, body), 400)
      expect(error).toMatchObject({ code: 'invalid_request', details: { issues: [{ field: named }] } })
      expect(error.message).toBe(`${named}: there is no such field; ${instead}`)
    }
  })

  it('take every field that existing clients send', async () => {
    const created = await json<Capsule>(
      await platform.call('POST', '/v1/capsules', { template: 'minimal', vcpus: 1, memory_mb: 512, timeout_sec: 0 }),
      201,
    )
    const path = `/v1/capsules/${created.id}`
    const command = { cmd: '/bin/sh', args: ['-c', 'true'], envs: { GIT_TERMINAL_PROMPT: '0' }, cwd: '/tmp' }
    await json(await platform.call('POST', `${path}/exec`, { ...command, background: false, timeout_sec: 9 }), 200)
    await json(await platform.call('POST', `${path}/exec`, { ...command, background: true, tag: 'mine' }), 202)
    await json(await platform.call('POST', `${path}/files/mkdir`, { path: '/tmp/made' }), 200)
    await json(await platform.call('POST', `${path}/files/list`, { path: '/tmp', depth: 1 }), 200)
    expect((await platform.call('POST', `${path}/files/remove`, { path: '/tmp/made' })).status).toBe(204)
    await json(await platform.call('POST', '/v1/snapshots', { sandbox_id: created.id, name: 'theirs' }), 201)
    const form = new FormData()
    form.set('path', '/tmp/form')
    form.set('of_their_own', 'x')
    form.set('file', new Blob(['x']), 'upload')
    const init = { method: 'POST', headers: { 'x-api-key': platform.key }, body: form }
    expect((await fetch(`${platform.url}${path}/files/write?other=1`, init)).status).toBe(204)
    const socket = platform.open(`${path}/pty`)
    await socket.send({ type: 'start', cmd: '/bin/sh', cols: 80, rows: 24, other: true })
    await socket.until('started')
    const stream = platform.open(`${path}/exec/stream`)
    await stream.send({ type: 'start', cmd: 'true', args: [], other: true })
    await stream.until('exit')
    await platform.call('DELETE', path)
  })

  it('refuse text that is no Unicode, by its field, for no database holds it', async () => {
    for (const field of ['labels', 'envs']) {
      const response = await platform.call('POST', '/v1/capsules', { [field]: { A: 'half \ud83d' } })
      const { error } = await json<{ error: { message: string } }>(response, 400)
      expect(error.message).toContain(field)
    }
  })

  it('refuse a way out that is no address and no domain, by its entry, before anything is made', async () => {
    const newest = async () => {
      const [capsule] = await json<Capsule[]>(await platform.call('GET', '/v1/capsules?status=all&limit=1'), 200)
      return capsule?.id // only its id: one that is being destroyed changes meanwhile
    }
    const before = await newest()
    for (const entry of ['com', '*.com', '10.0.0.0/33', '::1', '10.0.0', '1.2.3.4/8/8']) {
      for (const egress of [{ allow: [entry] }, { deny: ['203.0.113.0/24', entry] }]) {
        const response = await platform.call('POST', '/v1/capsules', { egress })
        const { error } = await json<{ error: { code: string; message: string } }>(response, 400)
        expect(error.message).toContain(entry)
      }
    }
    expect(await newest()).toBe(before)
  })

  it('cannot be made from an unknown template', async () => {
    const response = await platform.call('POST', '/v1/capsules', { template: 'nope' })
    expect(await errorCode(response, 404)).toBe('template_not_found')
  })

  it('are the same one for the same idempotency key, also when asked at once, and a conflict for another body', async () => {
    const key = { 'idempotency-key': 'k-1' }
    const answers = await Promise.all([1, 2, 3].map(() => platform.call('POST', '/v1/capsules', { name: 'once' }, key)))
    const ids = await Promise.all(answers.map(async (answer) => (await json<Capsule>(answer, 201)).id))
    expect(new Set(ids).size).toBe(1)
    const other = await platform.call('POST', '/v1/capsules', { name: 'other' }, key)
    expect(await errorCode(other, 409)).toBe('idempotency_mismatch')
    await platform.call('DELETE', `/v1/capsules/${ids[0]}`)
  })

  it('answer `starting` when the create takes longer than the caller waits, and run later', async () => {
    const release = platform.host.holdCreates()
    const slow = await json<Capsule>(await platform.call('POST', '/v1/capsules?wait_sec=0.1', {}), 201)
    expect(slow.status).toBe('starting')
    release()
    await platform.until(slow.id, 'running')
    await platform.call('DELETE', `/v1/capsules/${slow.id}`)
  })

  it('are waited for by calls that come while they start', async () => {
    const release = platform.host.holdCreates()
    const slow = await json<Capsule>(await platform.call('POST', '/v1/capsules?wait_sec=0', {}), 201)
    const path = `/v1/capsules/${slow.id}`
    const asked = platform.call('POST', `${path}/exec`, { cmd: 'echo', args: ['ready'] })
    const socket = platform.open(`${path}/exec/stream`)
    await socket.send({ type: 'start', cmd: 'echo', args: ['ready'] })
    expect((await platform.get(slow.id)).status).not.toBe('running')
    release()
    expect(await json<{ stdout: string }>(await asked, 200)).toMatchObject({ stdout: 'ready\n' })
    expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 0 })
    await platform.call('DELETE', path)
  })

  it('are given up with a reason by calls that came while they started and then did not', async () => {
    const release = platform.host.holdCreates()
    const slow = await json<Capsule>(await platform.call('POST', '/v1/capsules?wait_sec=0', {}), 201)
    const asked = platform.call('POST', `/v1/capsules/${slow.id}/exec`, { cmd: 'true' })
    await platform.call('DELETE', `/v1/capsules/${slow.id}`)
    release()
    expect(await errorCode(await asked, 409)).toBe('invalid_state')
  })

  it('go on being created when the client hangs up', async () => {
    const release = platform.host.holdCreates()
    const before = platform.host.creates
    const hangUp = new AbortController()
    const asked = fetch(`${platform.url}/v1/capsules`, {
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json' },
      body: '{"name":"left alone"}',
      signal: hangUp.signal,
    })
    await expect.poll(() => platform.host.creates).toBe(before + 1)
    hangUp.abort()
    await expect(asked).rejects.toThrow()
    release()
    const list = async () => await json<Capsule[]>(await platform.call('GET', '/v1/capsules?name=left%20alone'), 200)
    await expect.poll(async () => (await list())[0]?.state).toBe('running')
    await platform.call('DELETE', `/v1/capsules/${(await list())[0]?.id}`)
  })

  it('are listed newest first, filtered, page by page', async () => {
    const made = []
    for (const name of ['a', 'b', 'c']) made.push(await platform.create({ name, labels: { set: 'page', nr: name } }))
    const ids = (list: Capsule[]) => list.map(({ name }) => name)
    const first = await platform.call('GET', '/v1/capsules?label=set=page&limit=2')
    expect(ids(await json<Capsule[]>(first.clone(), 200))).toEqual(['c', 'b'])
    const cursor = first.headers.get('x-next-token')
    const second = await platform.call('GET', `/v1/capsules?label=set=page&limit=2&cursor=${cursor}`)
    expect(ids(await json<Capsule[]>(second.clone(), 200))).toEqual(['a'])
    expect(second.headers.get('x-next-token')).toBeNull()
    const both = await platform.call('GET', '/v1/capsules?label=set=page&label=nr=b&status=running&template=minimal')
    expect(ids(await json<Capsule[]>(both, 200))).toEqual(['b'])
    for (const { id } of made) await platform.call('DELETE', `/v1/capsules/${id}`)
    expect(await json<Capsule[]>(await platform.call('GET', '/v1/capsules?label=set=page'), 200)).toEqual([])
    const stopped = await platform.call('GET', '/v1/capsules?label=set=page&status=stopped')
    expect(await json<Capsule[]>(stopped, 200)).toHaveLength(3)
  })

  it('can be destroyed twice and read afterwards', async () => {
    const { id } = await platform.create()
    expect((await platform.call('DELETE', `/v1/capsules/${id}`)).status).toBe(204)
    expect((await platform.call('DELETE', `/v1/capsules/${id}`)).status).toBe(204)
    expect(await platform.get(id)).toMatchObject({ status: 'stopped', state: 'stopped' })
    expect(platform.host.capsules.has(id)).toBe(false)
    const response = await platform.call('POST', `/v1/capsules/${id}/exec`, { cmd: 'true' })
    expect(await errorCode(response, 409)).toBe('invalid_state')
  })

  it('report what they use', async () => {
    const metrics = await json<{ points: object[]; sandbox_id: string }>(
      await platform.call('GET', at('/metrics')),
      200,
    )
    expect(metrics.sandbox_id).toBe(capsule.id)
    expect(metrics.points).toHaveLength(1)
  })
})

describe('credentials', () => {
  it('are asked for everywhere below /v1, and for what tells of the platform', async () => {
    expect(await errorCode(await fetch(`${platform.url}/v1/capsules`), 401)).toBe('unauthorized')
    const wrong = await fetch(`${platform.url}/v1/capsules`, { headers: { 'x-api-key': 'wrn_0' } })
    expect(await errorCode(wrong, 401)).toBe('unauthorized')
    expect((await fetch(`${platform.url}/health`)).status).toBe(200)
    expect((await fetch(`${platform.url}/ready`)).status).toBe(200)
    expect((await fetch(`${platform.url}/docs`)).status).toBe(200)
    expect(await errorCode(await fetch(`${platform.url}/metrics`), 401)).toBe('unauthorized')
    expect(await (await platform.call('GET', '/metrics')).text()).toContain('route="/v1/capsules"')
  })
})

describe('exec', () => {
  it("honours environment, directory and input, and keeps the capsule's own environment", async () => {
    const result = await exec({
      cmd: '/bin/sh',
      args: ['-c', 'echo "$GREETING $EXTRA $PWD"; cat; echo oops >&2; exit 3'],
      envs: { EXTRA: 'world' },
      cwd: '/tmp',
      stdin: 'from stdin',
    })
    expect(result).toMatchObject({
      exit_code: 3,
      stderr: 'oops\n',
      encoding: 'utf-8',
      timed_out: false,
      truncated: false,
    })
    expect(result.stdout).toMatch(/^hello world .*\/tmp\nfrom stdin$/)
    expect(result.sandbox_id).toBe(capsule.id)
  })

  it('kills the whole tree at its timeout and gives the output so far', async () => {
    const result = await exec({
      cmd: '/bin/sh',
      args: ['-c', 'echo before; sleep 600 & echo $!; wait'],
      timeout_sec: 0.3,
    })
    expect(result).toMatchObject({ exit_code: 124, timed_out: true })
    const [before, child] = result.stdout.trim().split('\n')
    expect(before).toBe('before')
    const alive = await exec({ cmd: '/bin/sh', args: ['-c', `grep -s State /proc/${child}/status || echo gone`] })
    expect(alive.stdout).toMatch(/gone|zombie|dead/)
  })

  it('tells by which signal a process ended', async () => {
    const result = await exec({ cmd: '/bin/sh', args: ['-c', 'kill -9 $$'] })
    expect(result).toMatchObject({ exit_code: 137, signal: 9 })
  })

  it('answers bytes that are not UTF-8 as base64', async () => {
    const result = await exec({ cmd: 'printf', args: ['\\377\\000'] })
    expect(result.encoding).toBe('base64')
    expect(Buffer.from(result.stdout, 'base64')).toEqual(Buffer.from([255, 0]))
  })

  it('gives 127 for a command that does not exist and 400 for a directory that does not', async () => {
    expect(await exec({ cmd: 'no-such-command' })).toMatchObject({ exit_code: 127 })
    const response = await platform.call('POST', at('/exec'), { cmd: 'true', cwd: '/no/such' })
    expect(await errorCode(response, 400)).toBe('invalid_request')
  })

  it('runs in the background, is listed, and dies by tag', async () => {
    const response = await platform.call('POST', at('/exec'), {
      cmd: 'sleep',
      args: ['600'],
      background: true,
      tag: 'nap',
    })
    expect(await json(response, 202)).toMatchObject({ tag: 'nap', cmd: 'sleep' })
    const list = async () => {
      const answer = await platform.call('GET', at('/processes'))
      return (await json<{ processes: { tag: string }[] }>(answer, 200)).processes.map(({ tag }) => tag)
    }
    expect(await list()).toContain('nap')
    expect((await platform.call('DELETE', at('/processes/nap?signal=SIGTERM'))).status).toBe(204)
    await expect.poll(list).not.toContain('nap')
    expect(await errorCode(await platform.call('DELETE', at('/processes/nobody')), 404)).toBe('process_not_found')
  })
})

describe('files', () => {
  const upload = async (path: string, content: string | Uint8Array<ArrayBuffer>, route = '/files/write') => {
    const form = new FormData()
    form.set('path', path)
    form.set('file', new Blob([content]), 'upload')
    return await fetch(platform.url + at(route), {
      method: 'POST',
      headers: { 'x-api-key': platform.key },
      body: form,
    })
  }

  it('come back as they were written, by form and raw, whole and in ranges', async () => {
    const bytes = new Uint8Array(3_000_000).map((_, index) => index * 7)
    expect((await upload('/data/deep/a.bin', bytes)).status).toBe(204)
    const read = await platform.call('POST', at('/files/read'), { path: '/data/deep/a.bin' })
    expect(Buffer.from(await read.arrayBuffer()).equals(bytes)).toBe(true)
    const put = await fetch(`${platform.url}${at('/files')}?path=/data/b.bin`, {
      method: 'PUT',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json' },
      body: bytes,
    })
    expect(await json(put, 200)).toEqual({ path: '/data/b.bin', bytes: bytes.length })
    const range = (value: string) => platform.call('GET', at('/files?path=/data/b.bin'), undefined, { range: value })
    const middle = await range('bytes=10-19')
    expect(middle.status).toBe(206)
    expect(middle.headers.get('content-range')).toBe('bytes 10-19/3000000')
    expect(Buffer.from(await middle.arrayBuffer()).equals(bytes.subarray(10, 20))).toBe(true)
    const tail = await range('bytes=-5')
    expect(Buffer.from(await tail.arrayBuffer()).equals(bytes.subarray(-5))).toBe(true)
    const beyond = await range('bytes=3000000-')
    expect(beyond.headers.get('content-range')).toBe('bytes */3000000')
    expect(await errorCode(beyond, 416)).toBe('range_not_satisfiable')
    const head = await platform.call('HEAD', at('/files?path=/data/b.bin'))
    expect(head.headers.get('content-length')).toBe('3000000')
    const part = await platform.call('POST', at('/files/stream/read'), { path: '/data/b.bin', offset: 5, length: 3 })
    expect(Buffer.from(await part.arrayBuffer()).equals(bytes.subarray(5, 8))).toBe(true)
  })

  it('are reached by names that are not UTF-8, by their text or byte by byte in a URL, and never others', async () => {
    const key = { 'x-api-key': platform.key }
    const raw = `${platform.url}${at('/files')}?path=/data/odd/caf%E9`
    const text = '/data/odd/caf\ufffde9'
    const put = await fetch(raw, { method: 'PUT', headers: key, body: 'odd' })
    expect(await json(put, 200)).toEqual({ path: text, bytes: 3 })
    expect(await (await fetch(raw, { headers: key })).text()).toBe('odd')
    expect(await (await platform.call('GET', at(`/files?path=${encodeURIComponent(text)}`))).text()).toBe('odd')
    const { entries } = await json<FileList>(await platform.call('POST', at('/files/list'), { path: '/data/odd' }), 200)
    expect(entries.map(({ path, name }) => [path, name])).toEqual([[text, 'caf\ufffde9']])
    for (const other of ['%FE', '%EF%BF%BD', 'caf%C3%A9']) {
      const missing = await platform.call('GET', at(`/files?path=/data/odd/${other}`))
      expect(await errorCode(missing, 404)).toBe('file_not_found')
    }
    const body = Buffer.concat([Buffer.from('{"path":"/data/odd/caf'), Buffer.from([0xe9]), Buffer.from('"}')])
    for (const verb of ['stat', 'mkdir', 'remove', 'read']) {
      const headers = { ...key, 'content-type': 'application/json' }
      const refused = await fetch(`${platform.url}${at(`/files/${verb}`)}`, { method: 'POST', headers, body })
      expect(await errorCode(refused, 400)).toBe('invalid_request')
    }
  })

  it('of a form are written once all of it is there: not when it has more files, or breaks off behind the first', async () => {
    const form = (...parts: readonly string[]): RequestInit => ({
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'multipart/form-data; boundary=B' },
      body: parts.map((part) => `--B\r\nContent-Disposition: form-data; ${part}\r\n`).join(''),
    })
    const named = 'name="path"\r\n\r\n/data/form'
    const file = 'name="file"; filename="x"\r\n\r\ncontent'
    const send = async (...parts: readonly string[]) =>
      await fetch(`${platform.url}${at('/files/write')}`, form(...parts))
    for (const parts of [
      [named, file, file, '--B--'],
      [named, file, 'name="later"'],
      [named, file],
    ]) {
      expect(await errorCode(await send(...parts), 400)).toBe('invalid_request')
      expect(await errorCode(await platform.call('GET', at('/files?path=/data/form')), 404)).toBe('file_not_found')
    }
    expect((await send(named, `${file}\r\n--B--`)).status).toBe(204)
    expect(await (await platform.call('GET', at('/files?path=/data/form'))).text()).toBe('content')
  })

  it('are put under the conditions that a client sends', async () => {
    const put = async (headers: Record<string, string>) =>
      await fetch(`${platform.url}${at('/files')}?path=/data/once`, {
        method: 'PUT',
        headers: { 'x-api-key': platform.key, ...headers },
        body: 'x',
      })
    expect(await errorCode(await put({ 'if-match': '*' }), 412)).toBe('precondition_failed')
    expect((await put({ 'if-none-match': '*' })).status).toBe(200)
    expect(await errorCode(await put({ 'if-none-match': '*' }), 412)).toBe('precondition_failed')
    expect((await put({ 'if-match': '*' })).status).toBe(200)
  })

  it('are unpacked when they come as gzip, and refused when they come packed otherwise', async () => {
    const put = async (coding: string, body: Uint8Array<ArrayBuffer>) =>
      await fetch(`${platform.url}${at('/files')}?path=/packed`, {
        method: 'PUT',
        headers: { 'x-api-key': platform.key, 'content-encoding': coding },
        body,
      })
    const packed = Uint8Array.from(gzipSync('plain '.repeat(1_000)))
    expect(await json(await put('gzip', packed), 200)).toEqual({ path: '/packed', bytes: 6_000 })
    const read = await platform.call('POST', at('/files/read'), { path: '/packed' })
    expect(await read.text()).toBe('plain '.repeat(1_000))
    for (const coding of ['br', 'gzip, gzip', 'nonsense']) {
      const refused = await put(coding, packed)
      expect(refused.headers.get('accept-encoding')).toBe('gzip, identity')
      expect(await errorCode(refused, 415)).toBe('unsupported_media_type')
    }
    for (const broken of [packed.subarray(0, -4), new TextEncoder().encode('x'.repeat(5_000_000))])
      expect(await errorCode(await put('gzip', broken), 400)).toBe('invalid_request')
    expect(await (await platform.call('POST', at('/files/read'), { path: '/packed' })).text()).toContain('plain')
  })

  it('are refused in a form that is packed, or has packed parts', async () => {
    const form = (transfer: string) =>
      `--b\r\ncontent-disposition: form-data; name="path"\r\n\r\n/form\r\n--b\r\n${transfer}content-disposition: form-data; name="file"; filename="x"\r\n\r\neA==\r\n--b--\r\n`
    const post = async (body: string | Uint8Array<ArrayBuffer>, more = {}) =>
      await fetch(platform.url + at('/files/write'), {
        method: 'POST',
        headers: { 'x-api-key': platform.key, 'content-type': 'multipart/form-data; boundary=b', ...more },
        body,
      })
    const packed = await post(Uint8Array.from(gzipSync(form(''))), { 'content-encoding': 'gzip' })
    expect(await errorCode(packed, 415)).toBe('unsupported_media_type')
    const part = await post(form('content-transfer-encoding: base64\r\n'))
    expect(await errorCode(part, 415)).toBe('unsupported_media_type')
    expect((await post(form(''))).status).toBe(204)
  })

  it('are listed, described, moved and removed', async () => {
    await upload('/tree/x/one.txt', 'one')
    expect(await errorCode(await platform.call('POST', at('/files/mkdir'), { path: '/tree/x' }), 409)).toBe('conflict')
    await json(await platform.call('POST', at('/files/mkdir'), { path: '/tree/y/z' }), 200)
    const list = await json<{ entries: { path: string }[] }>(
      await platform.call('POST', at('/files/list'), { path: '/tree', depth: 2 }),
      200,
    )
    expect(list.entries.map(({ path }) => path)).toEqual(['/tree/x', '/tree/x/one.txt', '/tree/y', '/tree/y/z'])
    const moved = await platform.call('POST', at('/files/move'), {
      source: '/tree/x/one.txt',
      destination: '/tree/two.txt',
    })
    expect(await json(moved, 200)).toMatchObject({ entry: { name: 'two.txt', type: 'file', size: 3 } })
    expect((await platform.call('POST', at('/files/remove'), { path: '/tree' })).status).toBe(204)
    const gone = await platform.call('POST', at('/files/stat'), { path: '/tree/two.txt' })
    expect(await errorCode(gone, 404)).toBe('file_not_found')
  })

  it('say what is wrong with a path', async () => {
    const read = (path: string) => platform.call('POST', at('/files/read'), { path })
    expect(await errorCode(await read('/missing'), 404)).toBe('file_not_found')
    expect(await errorCode(await read('/tmp'), 400)).toBe('is_a_directory')
    expect(await errorCode(await read('/a\0b'), 400)).toBe('invalid_request')
  })

  it('are not written when the upload breaks off', async () => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new Uint8Array(100_000))
      },
      pull(controller) {
        controller.error(new Error('broken'))
      },
    })
    const url = `${platform.url}${at('/files')}?path=/half.bin`
    const init = { method: 'PUT', headers: { 'x-api-key': platform.key }, body, duplex: 'half' as const }
    await expect(fetch(url, init)).rejects.toThrow()
    const stat = await platform.call('POST', at('/files/stat'), { path: '/half.bin' })
    expect(await errorCode(stat, 404)).toBe('file_not_found')
  })

  it('need the path before the bytes', async () => {
    const form = new FormData()
    form.set('file', new Blob(['x']), 'upload')
    form.set('path', '/late.txt')
    const response = await fetch(platform.url + at('/files/write'), {
      method: 'POST',
      headers: { 'x-api-key': platform.key },
      body: form,
    })
    expect(await errorCode(response, 400)).toBe('invalid_request')
  })
})
