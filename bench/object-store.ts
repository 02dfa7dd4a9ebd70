// node --conditions=wrenn-source --import tsx bench/object-store.ts [--mib 256] [--chunks 256,1024,4096] [--rounds 3]
// What a saved state costs on its way to an object store and back: Ceph's RGW with its store in memory, on this machine and beside us. The state is
// a file of which a quarter is holes, half is what lies in /usr/lib and the rest is random. Then 5 % of its pages change, in runs of 64 and each
// by itself. Floor: as many random objects of 1 MiB through the same client. With RGW installed (Debian: radosgw ceph-mon ceph-osd ceph-common).
import { randomBytes } from 'node:crypto'
import { type FileHandle, mkdir, mkdtemp, open, readdir, rm } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { makeBucket, rgwKind, type S3Server } from '@wrenn/testkit'
import { type ObjectStore, openObjectStore, StateStore } from '../packages/object-store/src/index.js'
import { forEachParallel } from '../packages/object-store/src/parallel.js'
import { seededRandom } from './random.js'
import { log } from './soak.js'
import { median, round, timed } from './stats.js'

const MIB = 2 ** 20
const PAGE_BYTES = 4096
const CHANGED = 0.05
const LIBRARIES = '/usr/lib/x86_64-linux-gnu'
const FLOOR_PARALLEL = 12
const bucket = 'wrenn-bench'

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256' },
    chunks: { type: 'string', default: '256,1024,4096' },
    rounds: { type: 'string', default: '3' },
  },
})
const mib = Number(values.mib)
const rounds = Number(values.rounds)
/** What is no hole. */
const dataMib = (mib * 3) / 4
const signal = new AbortController().signal
const random = seededRandom(1)

/** Contents of libraries, one after the other. */
async function* libraryBytes(): AsyncGenerator<Buffer> {
  for (const name of await readdir(LIBRARIES, { recursive: true })) {
    if (!name.endsWith('.so') && !name.includes('.so.')) continue
    const file = await open(join(LIBRARIES, name)).catch(() => undefined)
    if (file === undefined) continue
    try {
      if ((await file.stat()).isFile()) yield await file.readFile()
    } finally {
      await file.close()
    }
  }
}

/** A piece of 1 MiB of each four is a hole, two are of libraries, one is random. */
async function makeState(path: string): Promise<void> {
  await using file = await open(path, 'w')
  await file.truncate(mib * MIB)
  let place = 0
  let pending = Buffer.alloc(0)
  for await (const bytes of libraryBytes()) {
    pending = Buffer.concat([pending, bytes])
    for (; pending.length >= MIB && place < mib; place++) {
      if (place % 4 === 0) continue
      if (place % 4 === 1) await file.write(randomBytes(MIB), 0, MIB, place * MIB)
      else {
        await file.write(pending, 0, MIB, place * MIB)
        pending = pending.subarray(MIB)
      }
    }
    if (place >= mib) return
  }
  throw new Error(`${LIBRARIES} has too little for --mib ${mib}`)
}

/** Changes 5 % of all pages, so many in a row. @returns how many bytes */
async function changePages(file: FileHandle, inRow: number): Promise<number> {
  const runs = Math.round((mib * MIB * CHANGED) / PAGE_BYTES / inRow)
  const places = (mib * MIB) / PAGE_BYTES / inRow
  const chosen = new Set<number>()
  while (chosen.size < runs) chosen.add(Math.floor(random() * places))
  const bytes = PAGE_BYTES * inRow
  for (const place of chosen) await file.write(randomBytes(bytes), 0, bytes, place * bytes)
  return runs * bytes
}

/** Runs it, and tells by how much more memory there was at most for objects and buffers, those not collected yet too. */
async function watched<T>(run: () => Promise<T>): Promise<{ value: T; ms: number; grownMib: number }> {
  global.gc?.()
  const used = (): number => {
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external
  }
  const before = used()
  let most = before
  const watch = setInterval(() => {
    most = Math.max(most, used())
  }, 5)
  try {
    return { ...(await timed(run)), grownMib: round((most - before) / MIB) }
  } finally {
    clearInterval(watch)
  }
}

const perSecond = (amountMib: number, ms: number): number => amountMib / (ms / 1000)

/** A quarter as much as the state, in random objects of 1 MiB. */
async function measureFloor(store: ObjectStore) {
  const objects = new Map(Array.from({ length: mib / 4 }, (_, at) => [`floor/${at}`, randomBytes(MIB)]))
  const limits = { limit: FLOOR_PARALLEL, signal }
  const put = await timed(() => forEachParallel(objects, limits, ([key, bytes]) => store.put(key, bytes)))
  const got = await timed(() =>
    forEachParallel(objects.keys(), limits, async (key) => void (await store.get(key, { maxBytes: MIB }))),
  )
  await store.remove([...objects.keys()])
  return {
    'floor, write (MiB/s)': perSecond(objects.size, put.ms),
    'floor, read (MiB/s)': perSecond(objects.size, got.ms),
  }
}

async function measure(server: S3Server, folder: string, chunkKib: number, round_: number) {
  const { endpoint, region, accessKeyId, secretAccessKey } = server
  const prefix = `${chunkKib}-${round_}/`
  const config = { bucket, prefix, endpoint, region, accessKeyId, secretAccessKey, forcePathStyle: true }
  const store = await openObjectStore(config)
  try {
    const floor = await measureFloor(store)
    const path = join(folder, 'mem.raw')
    await makeState(path)
    const states = new StateStore(store, { id: 'team-bench', key: randomBytes(32) }, { chunkBytes: chunkKib * 1024 })
    const files = [{ name: 'mem', path }]
    const saved = await watched(() => states.save('st-1', files, { signal }))
    const same = await timed(() => states.save('st-2', files, { signal }))
    const to = join(folder, `copy-${prefix.slice(0, -1)}`)
    await mkdir(to)
    const loaded = await watched(() => states.load('st-1', to, { signal }))
    await rm(to, { recursive: true })
    await using file = await open(path, 'r+')
    const inRuns = await changePages(file, 64)
    const second = await states.save('st-2', files, { signal })
    const scattered = await changePages(file, 1)
    const third = await states.save('st-3', files, { signal })
    for (const state of ['st-1', 'st-2', 'st-3']) await states.remove(state)
    await states.collect({ signal })
    return {
      ...floor,
      'save (MiB/s of the state)': perSecond(dataMib, saved.ms),
      'save again, nothing changed (MiB/s)': perSecond(dataMib, same.ms),
      'load (MiB/s of the state)': perSecond(dataMib, loaded.ms),
      'sent of the state (%)': (100 * saved.value.sentBytes) / MIB / dataMib,
      'sent for 5 % changed in runs of 64 pages (× changed)': second.sentBytes / inRuns,
      'sent for 5 % changed page by page (× changed)': third.sentBytes / scattered,
      'memory grown: save (MiB)': saved.grownMib,
      'memory grown: load (MiB)': loaded.grownMib,
    }
  } finally {
    store.close()
  }
}

if (rgwKind.missing !== undefined) throw new Error(`Ceph's RGW is ${rgwKind.missing}`)
const folder = await mkdtemp(join(tmpdir(), 'wrenn-bench-store-'))
const server = await rgwKind.start()
try {
  await makeBucket(server, bucket)
  const sizes = values.chunks.split(',').map(Number)
  const samples = new Map<string, number[][]>()
  for (let at = 0; at < rounds; at++) {
    for (const [column, chunkKib] of sizes.entries()) {
      const figures = await measure(server, folder, chunkKib, at)
      log(`round ${at + 1}, chunks of ${chunkKib} KiB (load ${round(loadavg()[0] ?? 0)})`)
      for (const [name, figure] of Object.entries(figures)) {
        const row = samples.get(name) ?? sizes.map(() => [])
        row[column]?.push(figure)
        samples.set(name, row)
      }
    }
  }
  console.log(
    `${`state of ${mib} MiB, medians of ${rounds}; chunks of`.padEnd(56)} ${sizes.map((kib) => `${kib} KiB`.padStart(10)).join('')}`,
  )
  for (const [name, columns] of samples)
    console.log(`${name.padEnd(56)} ${columns.map((all) => String(round(median(all), 2)).padStart(10)).join('')}`)
} finally {
  await server[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
}
