import type { AwakeReason, CapsuleInfo, CheckpointInfo, PauseReason } from '@wrenn/sdk'
import { showSpan } from './units.js'

const pausedBecause: Readonly<Record<PauseReason, string>> = {
  request: 'because somebody asked for it',
  idle: 'because it was idle',
  lifetime: 'because its time was over',
  memory_pressure: 'because its host was short of memory',
  pool_low: 'because the pool of its host was nearly full',
  host_restart: 'because its host restarted',
}

const awakeBy: Readonly<Record<AwakeReason, string>> = {
  stream: 'an open stream or terminal',
  process: 'a running process',
  traffic: 'traffic to its ports',
  cpu: 'its CPU use',
  operation: 'an operation on it',
}

/** `paused 3 min ago because it was idle`. */
export function stateWords({ state, pausedAt, pauseReason }: CapsuleInfo, now: Date): string {
  if (state !== 'paused') return state
  const when = pausedAt ? ` ${showSpan(now.getTime() - pausedAt.getTime())} ago` : ''
  return `paused${when}${pauseReason ? ` ${pausedBecause[pauseReason]}` : ''}`
}

/** When a running capsule will be paused, or what keeps it awake; `undefined` when there is nothing to say. */
export function idleWords(info: CapsuleInfo, now: Date): string | undefined {
  if (info.state !== 'running') return undefined
  if (info.awakeBecause?.length) return `kept awake by ${info.awakeBecause.map((reason) => awakeBy[reason]).join(', ')}`
  if (info.timeoutMs === 0) return 'never pauses by itself'
  if (!info.pausesAt) return undefined
  const inMs = info.pausesAt.getTime() - now.getTime()
  return inMs <= 0 ? 'will pause now' : `will pause in ${showSpan(inMs)} unless it is used`
}

/** What wakes a paused or hibernated capsule. */
export function wakeWords({ id, state, autoResume }: CapsuleInfo): string | undefined {
  if (state !== 'paused' && state !== 'pausing' && state !== 'hibernated') return undefined
  return autoResume ? 'when it is used' : `only with \`wrenn capsule resume ${id}\``
}

/** Whether a saved state would survive a power loss. */
export function savedWords({ durable, durableAt }: Pick<CapsuleInfo, 'durable' | 'durableAt'>): string | undefined {
  if (durable === undefined) return undefined
  if (!durable) return 'not durable yet: only a power loss of its host could lose it'
  return durableAt ? `durable since ${durableAt.toISOString()}` : 'durable'
}

interface TreeLine {
  /** What leads to the checkpoint from its parent: `│ └ `. */
  readonly branch: string
  readonly checkpoint: CheckpointInfo
}

/** Checkpoints as a tree, oldest first; one whose parent is gone is a root. */
export function treeOf(checkpoints: readonly CheckpointInfo[]): TreeLine[] {
  const known = new Set(checkpoints.map(({ id }) => id))
  const sorted = [...checkpoints].sort((a, b) => a.createdAt.getTime() - b.createdAt.getTime())
  const childrenOf = (parent: string | undefined): CheckpointInfo[] =>
    sorted.filter(({ parentId }) => (parentId !== undefined && known.has(parentId) ? parentId : undefined) === parent)
  const lines: TreeLine[] = []
  const visit = (parent: string | undefined, indent: string): void => {
    const siblings = childrenOf(parent)
    for (const [at, checkpoint] of siblings.entries()) {
      const isLast = at === siblings.length - 1
      const isRoot = parent === undefined
      lines.push({ branch: isRoot ? '' : `${indent}${isLast ? '└ ' : '├ '}`, checkpoint })
      visit(checkpoint.id, isRoot ? '' : `${indent}${isLast ? '  ' : '│ '}`)
    }
  }
  visit(undefined, '')
  return lines
}
