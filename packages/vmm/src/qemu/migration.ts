import { connect, type Socket } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { AppError, waitFor } from '@wrenn/base'
import { offerSocket } from './launch.js'
import type { QmpClient } from './qmp.js'
import { runFiles } from './run-dir.js'

const MIGRATION_DEADLINE_MS = 30_000
/** Device state is about 0.4 MB. Much more means that RAM is in the stream, which breaks the promise on pause times. */
const MAX_STATE_BYTES = 64 * 1024 * 1024

/** Must be the same on both sides of a snapshot. RAM is in its own file, so one pass with stopped vCPUs is all there is. */
export async function configureMigration(qmp: QmpClient): Promise<void> {
  const capabilities = ['x-ignore-shared', 'events'].map((capability) => ({ capability, state: true }))
  await Promise.all([
    qmp.execute('migrate-set-capabilities', { capabilities }),
    qmp.execute('migrate-set-parameters', { 'max-bandwidth': 64 * 2 ** 30, 'downtime-limit': 60_000 }),
  ])
}

interface MigrationWatch extends Disposable {
  /** Rejects when QEMU reports failure or goes away. */
  readonly completed: Promise<void>
  /** Rejects when time is up, whatever QEMU reports: it runs what a guest may have taken over. */
  readonly expired: Promise<never>
}

function watchMigration(qmp: QmpClient): MigrationWatch {
  let stop: () => void = () => {}
  let expire: (error: AppError) => void = () => {}
  const expired = new Promise<never>((_, reject) => {
    expire = reject
  })
  const completed = new Promise<void>((resolve, reject) => {
    const fail = (why: string) => reject(failed(why))
    const timer = setTimeout(
      () => expire(failed(`not finished after ${MIGRATION_DEADLINE_MS} ms`)),
      MIGRATION_DEADLINE_MS,
    )
    const forget = qmp.onEvent(({ event, data }) => {
      if (event !== 'MIGRATION') return
      if (data.status === 'completed') resolve()
      if (data.status === 'failed' || data.status === 'cancelled') fail(`QEMU says ${data.status}`)
    })
    void qmp.closed.then(() => fail('QEMU went away'))
    stop = () => {
      clearTimeout(timer)
      forget()
    }
  })
  // Whoever awaits them sees the error; nobody may be waiting yet.
  completed.catch(() => {})
  expired.catch(() => {})
  return { completed, expired, [Symbol.dispose]: () => stop() }
}

function failed(why: string): AppError {
  return new AppError('engine_failure', `Moving device state failed: ${why}.`)
}

async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of socket) {
    chunks.push(chunk as Buffer) // no encoding is set, so the stream gives buffers
    bytes += chunks[chunks.length - 1]?.length ?? 0
    if (bytes > MAX_STATE_BYTES) throw new AppError('engine_failure', 'The device state is far too large.')
  }
  return Buffer.concat(chunks)
}

/** Fetches the device state of a guest with stopped vCPUs. QEMU may not spawn, so it sends over a socket that we serve. */
export async function fetchDeviceState(
  qmp: QmpClient,
  runDir: string,
  owner: { readonly uid: number; readonly gid: number },
): Promise<Buffer> {
  const path = runFiles(runDir).saveSocket
  await using offer = await offerSocket(path, owner)
  using migration = watchMigration(qmp)
  const state = offer.accepted.then(readAll)
  state.catch(() => {}) // a migration that fails first is reported instead
  await qmp.execute('migrate', { uri: `unix:${path}` })
  try {
    const [bytes] = await Promise.race([Promise.all([state, migration.completed]), migration.expired])
    return bytes
  } finally {
    void offer.accepted.then((socket) => socket.destroy())
  }
}

/** QEMU reports a save's completion just before it leaves the state of saving, and a `cont` in between would abort it. */
export async function settledRunState(qmp: QmpClient): Promise<string> {
  const probe = async () => {
    const state = await runState(qmp)
    return state === 'finish-migrate' ? undefined : state
  }
  return await waitFor(probe, {
    timeoutMs: MIGRATION_DEADLINE_MS,
    intervalMs: 1,
    what: 'QEMU to settle after saving',
  })
}

/**
 * QEMU's own word for what it does (`RunState` of its QAPI schema), such as `running`, `paused`, `io-error`; `unknown` when
 * its answer has none.
 * @throws AppError `engine_failure` when QEMU does not answer
 */
export async function runState(qmp: QmpClient): Promise<string> {
  const answer = await qmp.execute('query-status')
  const known = typeof answer === 'object' && answer !== null && 'status' in answer
  return known ? String(answer.status) : 'unknown'
}

/** Feeds saved device state to a QEMU that was started with `-incoming defer`. */
export async function loadDeviceState(qmp: QmpClient, runDir: string, state: Uint8Array): Promise<void> {
  const path = runFiles(runDir).loadSocket
  using migration = watchMigration(qmp)
  await qmp.execute('migrate-incoming', { uri: `unix:${path}` })
  const socket = connect(path)
  const sent = pipeline(Readable.from([state], { objectMode: false }), socket)
  try {
    await Promise.race([migration.completed, sent.then(() => migration.completed), migration.expired])
  } finally {
    socket.destroy()
  }
}
