import type { AwakeReason, CapsuleInfo, PauseReason } from '@wrenn/sdk'
import { duration, relative } from '../format.js'

/** What is needed of a capsule to say when it rests. */
export type Resting = Pick<
  CapsuleInfo,
  'state' | 'timeoutMs' | 'pausesAt' | 'awakeBecause' | 'pauseReason' | 'pausedAt' | 'autoResume'
>

const awake: Readonly<Record<AwakeReason, string>> = {
  stream: 'a stream or terminal is open',
  process: 'somebody waits for a command',
  traffic: 'one of its ports is in use',
  cpu: 'its CPU is busy',
  operation: 'something is being done with it',
}
const paused: Readonly<Record<PauseReason, string>> = {
  request: 'somebody asked for it',
  idle: 'nobody used it',
  lifetime: 'its life was over',
  memory_pressure: 'its host was short of memory',
  pool_low: 'its host was short of space',
  host_restart: 'its host started again',
}

/** When it is paused and what keeps it from that, in sentences. */
export function restOf(info: Resting, now: Date): readonly string[] {
  if (info.state === 'paused') return pausedSentences(info, now)
  if (info.state === 'hibernated') return [...HIBERNATED, wakingOf(info)]
  if (info.state !== 'running') return []
  if (info.timeoutMs === 0) return ['It is never paused for being idle.']
  const because = info.awakeBecause ?? []
  if (because.length > 0) return [`It stays awake: ${because.map((reason) => awake[reason] ?? reason).join(', ')}.`]
  if (info.pausesAt === undefined) return [`It is paused after ${duration(info.timeoutMs)} without activity.`]
  return [`It is paused ${relative(info.pausesAt, now)} unless it is used.`]
}

function pausedSentences({ pausedAt, pauseReason, autoResume }: Resting, now: Date): string[] {
  const when = pausedAt === undefined ? 'It is paused' : `It was paused ${relative(pausedAt, now)}`
  const why = pauseReason === undefined ? '' : `: ${paused[pauseReason] ?? pauseReason}`
  return [`${when}${why}.`, wakingOf({ autoResume })]
}

const HIBERNATED = [
  'It hibernates: its state is in the object store, and takes nothing of any host.',
  'To go on, it is fetched to a host that has room, which takes the longer the more there is of it.',
] as const

function wakingOf({ autoResume }: Pick<Resting, 'autoResume'>): string {
  return autoResume ? 'It wakes by itself when it is used.' : 'It waits for a resume.'
}
