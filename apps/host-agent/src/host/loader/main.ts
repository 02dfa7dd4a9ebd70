import { writeFileSync } from 'node:fs'
import { open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { AppError, errorText } from '@wrenn/base'
import { attachObjectStore, Pace, StateStore, type StoredFile } from '@wrenn/object-store'
import { ChunkedFile } from './chunked-file.js'
import { serveFile } from './fuse-server.js'
import { HolePuncher } from './hole-puncher.js'
import { allowWriteBack, mountFile } from './mount.js'
import { LOADER_FILES, type LoaderOrder, loaderOrderSchema } from './order.js'
import { patientOrigin } from './patient-origin.js'
import { prefetch } from './prefetch.js'
import { readWorkingSet, WorkingSet } from './working-set.js'

const USAGE = 'memory loader: <directory of the state>, and an order on standard input'

async function main([dir]: readonly string[]): Promise<void> {
  if (dir === undefined) throw new Error(USAGE)
  const order = loaderOrderSchema.parse(JSON.parse(await text(process.stdin)))
  const at = (name: string): string => join(dir, name)
  const fail = (error: unknown): never => {
    writeFileSync(at(LOADER_FILES.failed), sentenceOf(error), { mode: 0o600 })
    process.exit(1) // which ends the mount: nobody reads a wrong byte
  }
  const stored = await openStored(order)
  const handle = await open(at(LOADER_FILES.real), 'r+')
  const origin = patientOrigin(stored, order.giveUpMs)
  const first = await readWorkingSet(at(LOADER_FILES.workingSet), origin.chunkBytes)
  const noted = new WorkingSet(at(LOADER_FILES.workingSet), origin.chunkBytes)
  const puncher = new HolePuncher(handle.fd)
  const ending = new AbortController()
  const file = new ChunkedFile({
    handle,
    origin,
    punch: async (range) => await puncher.punch(range),
    onRead: (place) => noted.add(place),
    onFailure: (error) => void (ending.signal.aborted || fail(error)),
    signal: ending.signal,
  })
  const device = mountFile(at(LOADER_FILES.memory))
  const served = serveFile(device, file)
  await allowWriteBack(at(LOADER_FILES.memory))
  process.stdout.write('mounted\n')
  const fetched = prefetch(file, { first, all: origin.places }, ending.signal).then(async () => {
    if (ending.signal.aborted) return
    await file.sync()
    await writeFile(at(LOADER_FILES.whole), '', { mode: 0o600 })
  })
  await Promise.race([served, fetched.then(async () => await served)])
  ending.abort()
  await noted.end()
  process.exit(0)
}

async function openStored({ store, team, key, stateId, bytesPerSec }: LoaderOrder): Promise<StoredFile> {
  const objects = await attachObjectStore({ ...store, endpoint: store.endpoint })
  const states = new StateStore(objects, { id: team, key: Buffer.from(key, 'base64') }, { pace: new Pace(bytesPerSec) })
  return await states.openFile(stateId, LOADER_FILES.memory, AbortSignal.timeout(60_000))
}

function sentenceOf(error: unknown): string {
  return error instanceof AppError ? error.message : `What is loaded could not be read or written: ${errorText(error)}`
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`memory loader: ${errorText(error)}\n`)
  process.exit(1)
})
