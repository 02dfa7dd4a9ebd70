import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Capsule, ProcessHandle, PtyHandle, Wrenn } from '@wrenn/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { CuttableProxy } from '../harness/proxy.js'
import { loadSdk, openClient, type Sdk } from '../harness/sdk.js'

const { platform } = usePlatform()
let sdk: Sdk
let wrenn: Wrenn
let capsule: Capsule

beforeAll(async () => {
  sdk = await loadSdk(platform)
  wrenn = await openClient(platform)
  capsule = await wrenn.capsules.create({ name: 'sdk', envs: { COLOUR: 'green' }, labels: { by: 'sdk' } })
})
afterAll(async () => {
  await capsule?.destroy()
})

/** All text of a process until it ends. */
async function textOf(handle: ProcessHandle | PtyHandle): Promise<string> {
  const parts: Uint8Array[] = []
  for await (const event of handle) if ('data' in event) parts.push(event.data)
  return Buffer.concat(parts).toString()
}

describe('the SDK in Node', () => {
  it('creates a capsule, tells about it, and destroys it when its scope ends', async () => {
    let id: string
    {
      await using made = await wrenn.capsules.create({
        name: 'scoped',
        memoryMib: 512,
        diskSizeMib: 5120,
        idleTimeoutMs: 0,
      })
      id = made.id
      expect(made.info).toMatchObject({
        name: 'scoped',
        state: 'running',
        template: 'minimal',
        memoryMib: 512,
        vcpus: 1,
      })
      expect(made.info.createdAt).toBeInstanceOf(Date)
      const running: string[] = []
      for await (const info of wrenn.capsules.list({ pageSize: 1 })) running.push(info.id)
      expect(running).toEqual(expect.arrayContaining([made.id, capsule.id]))
    }
    expect((await wrenn.capsules.get(id)).info.state).toBe('stopped')
  })

  it('runs commands, given as a line or as a list', async () => {
    const line = await capsule.exec('echo "$COLOUR" | tr a-z A-Z; echo oops >&2; exit 2')
    expect(line).toMatchObject({ stdout: 'GREEN\n', stderr: 'oops\n', exitCode: 2, timedOut: false })
    const list = await capsule.exec(['printf', '%s', '$COLOUR'], { cwd: '/', user: 'user' })
    expect(list.stdout).toBe('$COLOUR')
    const bytes = await capsule.exec('cat', { stdin: new Uint8Array([0, 255]) })
    expect([...bytes.stdoutBytes]).toEqual([0, 255])
    expect(await capsule.exec('sleep 1000', { timeoutMs: 500 })).toMatchObject({ timedOut: true, exitCode: 124 })
  })

  it('streams output, writes input and signals', async () => {
    await using cat = await capsule.stream('cat; echo end >&2; exit 3', { stdin: true })
    await cat.write('hello ')
    await cat.write(new TextEncoder().encode('world'))
    await cat.closeStdin()
    expect(await textOf(cat)).toBe('hello worldend\n')
    expect(cat.exit).toMatchObject({ exitCode: 3 })
    await using loop = await capsule.stream('trap "exit 8" TERM; echo on; while :; do sleep 0.1; done')
    for await (const event of loop) if (event.type === 'stdout') await loop.signal('SIGTERM')
    expect(loop.exit?.exitCode).toBe(8)
  })

  it('starts in the background, lists, attaches from any offset and kills', async () => {
    const { tag, pid } = await capsule.start('echo 0123456789; sleep 1000', { tag: 'sdk-background' })
    const listed = (await capsule.processes()).find((one) => one.pid === pid)
    expect(listed).toMatchObject({ tag, running: true })
    const handle = await capsule.attach(tag, { fromOffset: 4 })
    for await (const event of handle) {
      if (event.type !== 'stdout') continue
      expect(Buffer.from(event.data).toString()).toBe('456789\n')
      expect(event.offset).toBe(4)
      await capsule.kill(tag)
    }
    expect(handle.exit).toMatchObject({ exitCode: 137, signal: 9 })
    await expect(capsule.attach('nobody')).rejects.toBeInstanceOf(sdk.ProcessNotFoundError)
  })

  it('opens a terminal and comes back to it', async () => {
    const pty = await capsule.pty({ command: ['/bin/sh'], cols: 90, rows: 20, tag: 'sdk-pty' })
    await pty.write('stty size; echo do""ne\n')
    let seen = ''
    for await (const event of pty) {
      if (event.type === 'output') seen += Buffer.from(event.data).toString()
      if (seen.includes('\r\ndone')) break
    }
    expect(seen).toContain('20 90')
    const again = await capsule.attachPty('sdk-pty', { fromOffset: 0 })
    await again.resize(44, 11)
    await again.write('stty size; exit 5\n')
    expect(await textOf(again)).toMatch(/20 90[\s\S]*11 44/)
    expect(again.exit?.exitCode).toBe(5)
  })

  it('carries on through cut connections without losing a byte', async () => {
    await using proxy = await CuttableProxy.open(platform.port)
    const bad = await openClient(platform, { apiUrl: proxy.url })
    const through = await bad.capsules.get(capsule.id)
    const changes: string[] = []
    const script = 'for i in $(seq 1 40); do seq -f "$i:%.0f" 1 500; sleep 0.02; done'
    await using stream = await through.stream(script, { onConnection: (state) => changes.push(state) })
    let text = ''
    let nextCut = 10_000
    for await (const event of stream) {
      if (event.type === 'lost') throw new Error('Output was lost.')
      if (event.type !== 'stdout') continue
      text += Buffer.from(event.data).toString()
      if (text.length < nextCut) continue
      nextCut += 40_000
      proxy.cut()
    }
    const expected = Array.from({ length: 40 }, (_, i) =>
      Array.from({ length: 500 }, (__, n) => `${i + 1}:${n + 1}\n`).join(''),
    )
    expect(text === expected.join('')).toBe(true)
    expect(changes.slice(0, 2)).toEqual(['lost', 'restored'])
    expect(stream.exit?.exitCode).toBe(0)
  })

  it('reads, writes, streams, lists, moves and removes files', async () => {
    const { files } = capsule
    const content = randomBytes(3_000_000)
    expect(await files.write('/root/sdk/one', content)).toEqual({ sizeBytes: content.length })
    expect(Buffer.from(await files.read('/root/sdk/one')).equals(content)).toBe(true)
    expect([...(await files.read('/root/sdk/one', { offsetBytes: 5, lengthBytes: 3 }))]).toEqual([
      ...content.subarray(5, 8),
    ])
    const stream = new Blob([content]).stream()
    await files.write('/root/sdk/two', stream)
    const digest = createHash('sha256')
    for await (const chunk of await files.readStream('/root/sdk/two')) digest.update(chunk)
    expect(digest.digest('hex')).toBe(createHash('sha256').update(content).digest('hex'))
    await files.move('/root/sdk/two', '/root/sdk/sub-three')
    expect((await files.list('/root/sdk')).map(({ name }) => name).sort()).toEqual(['one', 'sub-three'])
    expect(await files.stat('/root/sdk/one')).toMatchObject({ type: 'file', sizeBytes: content.length, owner: 'root' })
    await files.makeDir('/root/sdk/dir')
    expect(await files.exists('/root/sdk/dir')).toBe(true)
    await files.remove('/root/sdk')
    expect(await files.exists('/root/sdk')).toBe(false)
    await files.write('text.txt', 'grüße\n', { user: 'user' })
    expect(await files.readText('/home/user/text.txt')).toBe('grüße\n')
  })

  it('moves whole trees as tars, both ways', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'we2e-sdk-tar-'))
    try {
      const make =
        'mkdir -p in/sub/empty; echo kept > in/file; chmod 640 in/file; ln in/file in/same; ln -s file in/link'
      const odd = 'touch -d @1000000000 "in/sub/$(printf \'odd\\376\')"'
      const sh = (script: string): string => execFileSync('bash', ['-c', script], { cwd: dir, encoding: 'latin1' })
      sh(`${make}; ${odd}; tar -cf sent.tar -C in .`)
      const sent = execFileSync('cat', [join(dir, 'sent.tar')])
      const written = await capsule.files.writeArchive('/root/sdk-tree', new Blob([new Uint8Array(sent)]))
      expect(written).toEqual({ sizeBytes: sent.length })
      const notes: string[] = []
      const pieces: Uint8Array[] = []
      const stream = await capsule.files.readArchive('/root/sdk-tree', { onNote: (note) => notes.push(note) })
      for await (const piece of stream) pieces.push(piece)
      execFileSync('tar', ['-xpf', '-', '-C', dir], { input: Buffer.concat(pieces) })
      const facts = (tree: string): string =>
        sh(
          `cd ${tree} && find . -mindepth 1 -type d -printf '%P %m\\n' -o ! -type d -printf '%P %y %m %n %Ts %s %l\\n' | sort`,
        )
      expect(facts('sdk-tree')).toBe(facts('in'))
      expect(notes).toEqual([])
      await expect(capsule.files.readArchive('/root/missing')).rejects.toMatchObject({ code: 'file_not_found' })
      const torn = capsule.files.writeArchive('/root/torn', new Blob([new Uint8Array(sent.subarray(0, 700))]))
      await expect(torn).rejects.toMatchObject({ code: 'invalid_request' })
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })

  it('has an error class wherever a caller branches', async () => {
    await expect(capsule.files.read('/missing')).rejects.toBeInstanceOf(sdk.FileNotFoundError)
    await expect(wrenn.capsules.get(`cl-${'0'.repeat(25)}`)).rejects.toBeInstanceOf(sdk.CapsuleNotFoundError)
    await expect(wrenn.capsules.create({ template: 'nothing' })).rejects.toBeInstanceOf(sdk.TemplateNotFoundError)
    const stranger = await openClient(platform, { apiKey: 'wrong' })
    await expect(stranger.capsules.get(capsule.id)).rejects.toMatchObject({ code: 'unauthorized', status: 401 })
    const nowhere = await openClient(platform, { apiUrl: 'http://127.0.0.1:1' })
    await expect(nowhere.capsules.get(capsule.id)).rejects.toBeInstanceOf(sdk.ConnectionError)
    await using ended = await wrenn.capsules.create()
    await ended.destroy()
    await expect(ended.exec('true')).rejects.toBeInstanceOf(sdk.InvalidStateError)
  })

  it('tells metrics and templates', async () => {
    expect(await capsule.metrics()).toMatchObject({ cpuCount: 1, memoryTotalBytes: expect.any(Number) })
    expect((await wrenn.templates.list()).map(({ name }) => name)).toContain('minimal')
  })
})
