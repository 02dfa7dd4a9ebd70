import { AppError } from '@wrenn/base'
import { listDamage, type ObjectStoreConfig, openObjectStore, type StoreAbilities } from '@wrenn/object-store'
import { obstacleToLoading } from '../loader/index.js'
import type { DoctorCheck } from './report.js'

/** Of somebody who waits for the answer: two attempts that find nobody, or one that is slow. */
const DEADLINE_MS = 15_000
const ATTEMPTS = 2

const base = { id: 'object-store', title: 'Object store' }

/** Writes, reads, lists and removes one small object there. Without a store nothing is wrong: states stay on their host then. */
export async function checkObjectStore(
  config: ObjectStoreConfig | undefined,
  {
    objectStoreBytesPerSec,
    lazyResume = true,
  }: { readonly objectStoreBytesPerSec?: number | undefined; readonly lazyResume?: boolean | undefined } = {},
): Promise<DoctorCheck> {
  if (config === undefined) return { ...base, status: 'ok', detail: 'None is set (WRENN_OBJECT_STORE).' }
  const signal = AbortSignal.timeout(DEADLINE_MS)
  try {
    const store = await openObjectStore(config, { attempts: ATTEMPTS, signal })
    const damage = await listDamage(store, signal).finally(() => store.close())
    if (damage.size > 0) return damaged(damage)
    const sentences = [
      `${store.name} writes, reads, lists and removes. ${beside(store.abilities)}`,
      paceOf(objectStoreBytesPerSec),
      lazinessOf(lazyResume, await obstacleToLoading()),
    ]
    return { ...base, status: 'ok', detail: sentences.join(' ') }
  } catch (error) {
    if (signal.aborted) return failed(`The object store did not answer within ${DEADLINE_MS / 1000} s.`)
    if (AppError.is(error, 'object_store_refused', 'object_store_unavailable')) return failed(error.message)
    throw error
  }
}

function failed(detail: string): DoctorCheck {
  return { ...base, status: 'fail', detail, fix: 'See WRENN_OBJECT_STORE… in docs/configuration.md.' }
}

/** Teams are named as in the store: with which key is part of it. */
function damaged(teams: ReadonlyMap<string, number>): DoctorCheck {
  const chunks = [...teams.values()].reduce((sum, count) => sum + count, 0)
  return {
    ...base,
    status: 'warn',
    detail: `${chunks} chunks of stored states were damaged or missing when they were read (${[...teams.keys()].join(', ')}).`,
    fix: 'What stands on them cannot be resumed until another hibernation of the team has the same content and writes them anew; see docs/hibernation.md.',
  }
}

/** Whether hibernated capsules run before their memory is whole, and why not, a sentence. */
export function lazinessOf(isWanted: boolean, obstacle: string | undefined): string {
  if (isWanted && obstacle === undefined) return 'Hibernated capsules run before their memory is whole.'
  const why = isWanted ? obstacle : 'WRENN_LAZY_RESUME is off'
  return `Hibernated capsules run when all of their memory is here: ${why}.`
}

/** How fast transfers may be, a sentence. */
export function paceOf(bytesPerSec: number | undefined): string {
  if (bytesPerSec === undefined) return 'Transfers have no limit (WRENN_OBJECT_STORE_MIB_PER_SEC).'
  return `Transfers of this host take ${bytesPerSec / 2 ** 20} MiB/s at most (WRENN_OBJECT_STORE_MIB_PER_SEC).`
}

function beside({ ranges, conditionalWrites }: StoreAbilities): string {
  const can = (is: boolean) => (is ? 'yes' : 'no')
  return `Ranges: ${can(ranges)}; writes on condition: ${can(conditionalWrites)}; neither is needed.`
}
