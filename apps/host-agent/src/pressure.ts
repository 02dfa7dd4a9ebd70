import { stat } from 'node:fs/promises'
import type { Logger } from '@wrenn/base'
import type { CapsuleManager } from './capsule/manager.js'
import type { HostAgentConfig } from './config.js'
import { allocatedBytes } from './host/allocated.js'
import { type PressureCapsule, PressureWatch, readMemory } from './host/pressure/index.js'
import type { OpenMachine } from './machine.js'

interface Footprint {
  readonly atMs: number
  readonly bytes: number
}

/** Pauses capsules before the host runs out of memory or its pool fills. */
export function watchPressure(
  manager: CapsuleManager,
  machine: OpenMachine,
  config: HostAgentConfig,
  logger: Logger,
): PressureWatch {
  const footprints = new Map<string, Footprint>()
  const { memoryReserveBytes, poolReserveBytes } = config
  const watch = new PressureWatch({
    readMemory,
    poolUsage: async () => await machine.pool.usage(),
    capsules: async () => await candidates(manager, footprints),
    pause: async (id, reason) => {
      await manager.pause(id, reason)
    },
    limits: {
      ...(memoryReserveBytes === undefined ? {} : { memoryReserveBytes }),
      ...(poolReserveBytes === undefined ? {} : { poolReserveBytes }),
    },
    logger,
  })
  watch.start()
  return watch
}

async function candidates(manager: CapsuleManager, footprints: Map<string, Footprint>): Promise<PressureCapsule[]> {
  const running = manager.list().filter(({ state }) => state === 'running')
  const ids = new Set<string>(running.map(({ capsuleId }) => capsuleId))
  for (const id of footprints.keys()) if (!ids.has(id)) footprints.delete(id)
  return await Promise.all(
    running.map(async ({ capsuleId, lastActiveAtMs }) => {
      const { memory, disk } = await allocated(manager, capsuleId)
      const before = footprints.get(capsuleId)
      const now = { atMs: performance.now(), bytes: memory + disk }
      footprints.set(capsuleId, now)
      return {
        id: capsuleId,
        idleMs: Date.now() - lastActiveAtMs,
        reasons: manager.activity.streams(capsuleId) > 0 ? ['stream'] : [],
        memoryBytes: memory,
        grownBytesPerSec: before === undefined ? 0 : growth(before, now),
      }
    }),
  )
}

function growth(before: Footprint, now: Footprint): number {
  return (Math.max(0, now.bytes - before.bytes) / Math.max(1, now.atMs - before.atMs)) * 1000
}

/** What a guest's memory and disk take of the pool: its memory file is what it has touched. */
async function allocated(manager: CapsuleManager, capsuleId: string): Promise<{ memory: number; disk: number }> {
  const record = manager.get(capsuleId)
  const dir = record?.resources?.dir
  if (dir === undefined) return { memory: 0, disk: 0 }
  const { memoryPath, diskPath } = manager.context.states.files(dir)
  const [memory, disk] = await Promise.all([memoryPath, diskPath].map((path) => blocksOf(path)))
  return { memory: memory ?? 0, disk: disk ?? 0 }
}

async function blocksOf(path: string): Promise<number> {
  const found = await stat(path).catch(() => undefined) // it was moved or removed meanwhile
  return found === undefined ? 0 : allocatedBytes(found)
}
