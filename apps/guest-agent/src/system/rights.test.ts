import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Code, ConnectError } from '@connectrpc/connect'
import { signatureOf } from '@wrenn/base'
import { Filesystem } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader, TESTER, TOKEN } from '../testing/agent-harness.js'

let harness: AgentHarness
/** Root's, closed to everybody else. */
let closed: string
let count = 0

beforeAll(async () => {
  harness = await AgentHarness.start()
  await harness.init({ accessToken: TOKEN, defaultUser: TESTER.name })
})
afterAll(() => harness[Symbol.asyncDispose]())
beforeEach(() => {
  closed = join(harness.dir, `closed-${count++}`)
  mkdirSync(closed)
  chmodSync(closed, 0o700)
})

const client = { 'x-wrenn-secret': '', 'x-access-token': TOKEN }
const write = (path: string, body: string, headers: Record<string, string> = client) =>
  harness.fetch(`/files?path=${encodeURIComponent(path)}`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/octet-stream', ...headers },
  })
const ownerOf = (path: string) => statSync(path).uid
const files = () => harness.client(Filesystem, 'json', client)
const codeOf = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (error: unknown) => ConnectError.from(error).code,
  )

describe.skipIf(process.getuid?.() !== 0)('a client of the E2B wire (skipped without root)', () => {
  it('writes where its user may not, and what is made is the user’s', async () => {
    const path = join(closed, 'a', 'b', 'file')
    expect((await write(path, 'one')).status).toBe(200)
    expect([path, join(closed, 'a'), join(closed, 'a', 'b')].map(ownerOf)).toEqual([TESTER.uid, TESTER.uid, TESTER.uid])
    expect(ownerOf(closed)).toBe(0)
    expect(readFileSync(path, 'utf8')).toBe('one')
  })

  it('replaces a file of root’s, which becomes the user’s', async () => {
    const path = join(closed, 'file')
    writeFileSync(path, 'before', { mode: 0o600 })
    expect((await write(path, 'after')).status).toBe(200)
    expect([readFileSync(path, 'utf8'), ownerOf(path), statSync(path).mode & 0o777]).toEqual([
      'after',
      TESTER.uid,
      0o600,
    ])
  })

  it('leaves what its user may replace with whom it belongs to', async () => {
    const path = join(harness.dir, 'shared')
    writeFileSync(path, 'before')
    chmodSync(path, 0o666)
    expect((await write(path, 'after')).status).toBe(200)
    expect(ownerOf(path)).toBe(0)
  })

  it('sees, lists, reads, watches, makes, moves and removes there too', async () => {
    const path = join(closed, 'file')
    writeFileSync(path, 'precious', { mode: 0o600 })
    expect((await files().stat({ path })).entry?.owner).toBe('root')
    expect((await files().listDir({ path: closed })).entries.map(({ name }) => name)).toEqual(['file'])
    expect(await (await harness.fetch(`/files?path=${path}`, { headers: client })).text()).toBe('precious')
    const { watcherId } = await files().createWatcher({ path: closed })
    expect((await files().makeDir({ path: join(closed, 'x', 'y') })).entry?.owner).toBe(TESTER.name)
    expect(ownerOf(join(closed, 'x'))).toBe(TESTER.uid)
    await files().move({ source: path, destination: join(closed, 'z', 'moved') })
    expect([ownerOf(join(closed, 'z')), ownerOf(join(closed, 'z', 'moved'))]).toEqual([TESTER.uid, 0])
    await files().remove({ path: join(closed, 'z') })
    expect(existsSync(join(closed, 'z'))).toBe(false)
    await files().removeWatcher({ watcherId })
  })

  it('by a signature as well', async () => {
    const path = join(closed, 'signed')
    const signature = signatureOf({ path, operation: 'write', user: '', expiration: undefined }, TOKEN)
    const query = new URLSearchParams({ path, signature })
    const headers = { 'content-type': 'application/octet-stream' }
    expect((await fetch(`${harness.url}/files?${query}`, { method: 'POST', headers, body: 'x' })).status).toBe(200)
    expect(ownerOf(path)).toBe(TESTER.uid)
  })
})

describe.skipIf(process.getuid?.() !== 0)('the platform’s own API (skipped without root)', () => {
  it('has the rights of the user it names, no more', async () => {
    const path = join(closed, 'file')
    const user = asUserHeader(TESTER.name)
    expect((await write(path, 'x', user)).status).toBe(403)
    const own = harness.client(Filesystem, 'json', user)
    for (const call of [
      own.makeDir({ path: join(closed, 'x') }),
      own.stat({ path }),
      own.remove({ path }),
      own.listDir({ path: closed }),
      own.createWatcher({ path: closed }),
      own.move({ source: path, destination: join(harness.dir, 'stolen') }),
    ])
      expect(await codeOf(call)).toBe(Code.PermissionDenied)
    expect(existsSync(path)).toBe(false)
  })
})
