import { silentLogger } from '@wrenn/base'
import { CheckpointDiffer } from '../capsule/diff/differ.js'
import { CapsuleMetrics } from '../capsule/guest/metrics.js'
import { HostStatus } from '../capsule/host-status.js'
import { GarbageCollector } from '../capsule/lifecycle/garbage.js'
import type { CapsuleManager } from '../capsule/manager.js'
import { Traffic, UsageSampler } from '../capsule/usage/index.js'
import { createHostService } from '../rpc/service.js'
import type { TestMachine } from './test-machine.js'

/** A host's service over a machine without processes. */
export function serviceOf(machine: TestMachine, manager: CapsuleManager) {
  const { images, pool, slots } = machine.machine()
  const parts = {
    manager,
    images,
    metrics: new CapsuleMetrics(pool.path),
    usage: new UsageSampler({
      records: () => manager.list(),
      read: () => undefined,
      poolPath: pool.path,
      logger: silentLogger,
    }),
    traffic: new Traffic({ records: () => manager.list(), readNet: () => undefined, slots }),
    differ: new CheckpointDiffer(manager.context, async function* () {}),
    garbage: new GarbageCollector(manager.context, () => false),
  }
  return createHostService({ logger: silentLogger, status: new HostStatus('host', 'test'), parts: () => parts })
}
