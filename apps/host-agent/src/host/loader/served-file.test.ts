import { createHash, randomBytes } from 'node:crypto'
import { accessSync, closeSync, constants } from 'node:fs'
import { type FileHandle, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { run, runForResult } from '../exec.js'
import { ChunkedFile } from './chunked-file.js'
import { serveFile } from './fuse-server.js'
import { HolePuncher } from './hole-puncher.js'
import { mountFile } from './mount.js'
import { prefetch } from './prefetch.js'

const CHUNK = 2 ** 20
const CHUNKS = 6
/** Chunk 2 holds nothing. */
const places = [0, 1, 3, 4, 5]

function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root mounts'
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
    return undefined
  } catch {
    return 'there is no /dev/fuse'
  }
}

const why = obstacle()
if (why !== undefined) process.stdout.write(`Memory that fills itself is not tested: ${why}.\n`)

/** Maps the file as an engine does, writes, and has it flushed. */
const MAP_AND_WRITE = `
import mmap, sys
path, at, text = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
with open(path, 'r+b') as file:
    memory = mmap.mmap(file.fileno(), 0)
    memory[at:at + len(text)] = text
    memory.flush()`

function gate() {
  let open: () => void = () => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open, opened }
}

describe.runIf(why === undefined)('a mounted file that fills itself', () => {
  let dir: string
  let handle: FileHandle
  let file: ChunkedFile
  let served: Promise<void>
  let whole: Buffer
  let fetched: number[]
  let read: number[]
  let failures: unknown[]
  let failsAt: number | undefined
  let held: (place: number) => Promise<void>
  const path = () => join(dir, 'mem')

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'wrenn-served-'))
    whole = randomBytes(CHUNKS * CHUNK)
    whole.fill(0, 2 * CHUNK, 3 * CHUNK)
    ;[fetched, read, failures, failsAt] = [[], [], [], undefined]
    held = async () => {}
    await writeFile(path(), '')
    handle = await open(path(), 'r+')
    await handle.truncate(CHUNKS * CHUNK)
    const puncher = new HolePuncher(handle.fd)
    file = new ChunkedFile({
      handle,
      origin: {
        ...{ sizeBytes: CHUNKS * CHUNK, chunkBytes: CHUNK, places },
        chunk: async (place) => {
          fetched.push(place)
          await held(place)
          if (place === failsAt) throw new Error('it is damaged')
          return { plain: whole.subarray(place * CHUNK, (place + 1) * CHUNK) }
        },
      },
      punch: async (range) => await puncher.punch(range),
      onRead: (place) => read.push(place),
      onFailure: (error) => failures.push(error),
      signal: new AbortController().signal,
    })
    const device = mountFile(path())
    served = serveFile(device, file).finally(() => closeSync(device))
  })
  afterEach(async () => {
    await run('umount', ['--lazy', path()])
    await served
    await handle.close()
    await rm(dir, { recursive: true })
  })

  // Always other processes: one that served and waited for itself could stand still.
  const hashOf = async (target: string) => (await run('sha256sum', [target])).split(' ')[0]
  const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
  const real = async () => {
    const bytes = Buffer.alloc(CHUNKS * CHUNK)
    await handle.read(bytes, 0, bytes.length, 0)
    return bytes
  }

  it('has every byte for whoever reads it, each chunk fetched once, and is whole then', async () => {
    const [one, two] = await Promise.all([hashOf(path()), hashOf(path())])
    expect([one, two]).toEqual([hash(whole), hash(whole)])
    expect(fetched.toSorted()).toEqual(places)
    expect(file.isWhole).toBe(true)
    expect(hash(await real())).toBe(hash(whole))
  })

  it('fetches what is wanted first first, and the rest without being asked', async () => {
    await prefetch(file, { first: [4, 2, 1], all: places }, new AbortController().signal)
    expect(fetched.slice(0, 2)).toEqual([4, 1])
    expect(fetched.toSorted()).toEqual(places)
    expect(read).toEqual([])
    expect(await hashOf(path())).toBe(hash(whole))
    expect(read.toSorted()).toEqual([0, 1, 2, 3, 4, 5])
  })

  it('keeps what a mapping writes into a chunk that was not there, and all around it', async () => {
    const at = 3 * CHUNK + 12_345
    await run('python3', ['-c', MAP_AND_WRITE, path(), String(at), 'written by a guest'])
    whole.write('written by a guest', at)
    await prefetch(file, { first: [], all: places }, new AbortController().signal)
    expect(hash(await real())).toBe(hash(whole))
    expect(await hashOf(path())).toBe(hash(whole))
  })

  it('gives back what is punched, and fetches only what was punched in part', async () => {
    await run('fallocate', ['--punch-hole', '--offset', String(CHUNK / 2), '--length', String(CHUNK), path()])
    await run('fallocate', ['--punch-hole', '--offset', String(4 * CHUNK), '--length', String(CHUNK), path()])
    expect(fetched.toSorted()).toEqual([0, 1])
    whole.fill(0, CHUNK / 2, CHUNK * 1.5).fill(0, 4 * CHUNK, 5 * CHUNK)
    expect(await hashOf(path())).toBe(hash(whole))
    expect(fetched).not.toContain(4)
  })

  it('makes a hole only once nothing that was there comes over it any more', async () => {
    const gates = new Map([0, 1].map((place) => [place, gate()] as const))
    held = async (place) => await gates.get(place)?.opened
    const first = file.need(0)
    const punched = file.punch({ offset: CHUNK / 2, length: CHUNK * 1.5 })
    const second = file.need(1)
    gates.get(0)?.open()
    await first
    await Promise.race([punched, delay(500)])
    gates.get(1)?.open()
    await Promise.all([punched, second])
    expect((await real()).subarray(CHUNK / 2, 2 * CHUNK).every((byte) => byte === 0)).toBe(true)
  })

  it('has the owner and mode that it is given, as the file below it', async () => {
    await run('chown', ['1234:1235', path()])
    await run('chmod', ['0640', path()])
    expect((await run('stat', ['--format', '%u %g %a %s', path()])).trim()).toBe(`1234 1235 640 ${CHUNKS * CHUNK}`)
    expect(await handle.stat()).toMatchObject({ uid: 1234, gid: 1235 })
  })

  it('gives nobody a byte of a chunk that cannot be had, and says why', async () => {
    failsAt = 5
    const { exitCode } = await runForResult('sha256sum', [path()])
    expect(exitCode).not.toBe(0)
    expect(failures).toContainEqual(new Error('it is damaged'))
    expect(file.isWhole).toBe(false)
  })
})
