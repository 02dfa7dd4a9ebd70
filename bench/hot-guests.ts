import { waitFor } from '@wrenn/base'
import type { Platform } from './platform.js'

/** The shape that the host agent prepares at its start and keeps warm. */
export const SHAPE = { template: 'minimal', vcpus: 1, memory_mb: 512, disk_size_mb: 5120 }
const HOT_WAIT_MS = 120_000

/** Until every pool is as full as it wants to be: filling it would take the CPU from what is measured. */
export async function hotGuestsWait(platform: Platform): Promise<void> {
  const probe = async () => {
    const { pools } = await platform.host.getHost({})
    const full = pools.length > 0 && pools.every(({ hot, target }) => hot >= target && hot > 0)
    return full ? true : undefined
  }
  await waitFor(probe, { timeoutMs: HOT_WAIT_MS, intervalMs: 100, what: 'the hot pool to fill' })
}
