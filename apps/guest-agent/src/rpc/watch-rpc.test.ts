import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { EventType, Filesystem, type FilesystemEvent, FileType } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader, TESTER } from '../testing/agent-harness.js'
import { eventually } from '../testing/eventually.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

describe.each(['json', 'binary'] as const)('watching over %s', (codec) => {
  const client = (headers = {}) => harness.client(Filesystem, codec, headers)

  it('streams a start, then events with entries, keepalives in between, until the client leaves', async () => {
    const dir = join(harness.dir, `stream-${codec}`)
    mkdirSync(dir)
    const abort = new AbortController()
    const request = { path: dir, recursive: true, includeEntry: true }
    const stream = client({ 'keepalive-ping-interval': '0.05' }).watchDir(request, { signal: abort.signal })
    const seen: (string | undefined)[] = []
    const events: FilesystemEvent[] = []
    await expect(async () => {
      for await (const { event } of stream) {
        seen.push(event.case)
        if (event.case === 'keepalive' && events.length === 0) writeFileSync(join(dir, 'file'), 'content')
        if (event.case === 'filesystem') events.push(event.value)
        if (events.some((each) => each.type === EventType.WRITE)) abort.abort()
      }
    }).rejects.toThrow()
    expect(seen.slice(0, 3)).toEqual(['start', 'keepalive', 'filesystem'])
    expect(events[0]).toMatchObject({ name: 'file', type: EventType.CREATE, entry: { name: 'file', size: 7n } })
    expect(events[0]?.entry?.type).toBe(FileType.FILE)
  })

  it('keeps events for a client that polls, until it removes the watcher', async () => {
    const dir = join(harness.dir, `poll-${codec}`)
    mkdirSync(dir)
    const { watcherId } = await client().createWatcher({ path: dir })
    writeFileSync(join(dir, 'file'), 'x')
    const names: string[] = []
    await eventually('both events', async () => {
      const { events } = await client().getWatcherEvents({ watcherId })
      names.push(...events.map((each) => `${EventType[each.type]} ${each.name}`))
      expect(events.every((each) => each.entry === undefined)).toBe(true)
      return names.includes('WRITE file')
    })
    expect(names[0]).toBe('CREATE file')
    await client().removeWatcher({ watcherId })
    await expect(client().getWatcherEvents({ watcherId })).rejects.toMatchObject({ code: 5 })
    await expect(client().removeWatcher({ watcherId })).rejects.toMatchObject({ code: 5 })
  })

  it('refuses a file, what is missing and what is closed to the user', async () => {
    const file = join(harness.dir, `file-${codec}`)
    const closed = join(harness.dir, `closed-${codec}`)
    writeFileSync(file, '')
    mkdirSync(closed)
    chmodSync(closed, 0o700)
    await expect(client().createWatcher({ path: file })).rejects.toMatchObject({ code: 3 })
    await expect(client().createWatcher({ path: '/no/such' })).rejects.toMatchObject({ code: 5 })
    const asTester = client(asUserHeader(TESTER.name))
    await expect(asTester.createWatcher({ path: closed })).rejects.toMatchObject({ code: 7 })
    const stream = client().watchDir({ path: file })[Symbol.asyncIterator]()
    await expect(stream.next()).rejects.toMatchObject({ code: 3 })
  })
})
