import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { GetMetricsResponseSchema } from '@wrenn/protocol/host'
import { allocatedBytes } from '../../host/allocated.js'
import { STATE_FILES } from '../state-files.js'
import { guestError } from './error.js'
import type { Guest } from './guest.js'

/** What a capsule uses now: the guest's own view, and what it costs the host. */
export class CapsuleMetrics {
  readonly #poolPath: string

  constructor(poolPath: string) {
    this.#poolPath = poolPath
  }

  /** `silenceMs`: how long the guest may give no sign. @throws AppError `guest_unreachable`, `guest_died` */
  async read(guest: Guest, silenceMs?: number): Promise<MessageInitShape<typeof GetMetricsResponseSchema>> {
    const [inside, engine, disk] = await Promise.all([
      guest.client.metrics({ silenceMs }).catch((error: unknown) => {
        throw guestError(error)
      }),
      guest.vm.stats(),
      stat(join(this.#poolPath, guest.resources.dir, STATE_FILES.disk)),
    ])
    return {
      timestampMs: BigInt(Date.now()),
      cpuPct: inside.cpu_used_pct,
      cpuCount: inside.cpu_count,
      memUsedBytes: whole(inside.mem_used),
      memTotalBytes: whole(inside.mem_total),
      memCacheBytes: whole(inside.mem_cache),
      diskUsedBytes: whole(inside.disk_used),
      diskTotalBytes: whole(inside.disk_total),
      hostRssBytes: whole(engine.rssBytes),
      hostCpuNs: engine.cpuNs,
      hostDiskBytes: whole(allocatedBytes(disk)),
    }
  }
}

function whole(value: number): bigint {
  return BigInt(Math.max(0, Math.round(value)))
}
