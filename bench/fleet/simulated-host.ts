import {
  create,
  type DescMessage,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from '@bufbuild/protobuf'
import {
  GetHostResponseSchema,
  GetPoolUsageResponseSchema,
  ListCapsulesResponseSchema,
  ListCheckpointsResponseSchema,
  ListSnapshotsResponseSchema,
  ListTemplatesResponseSchema,
} from '@wrenn/protocol/host'
import { Host } from '../../apps/control-plane/src/host/host.js'
import type { HostLink } from '../../apps/control-plane/src/host/link.js'
import type { SeededHost } from './seed.js'

/** A host that answers what a control plane asks of one that is well; anything else is an error. */
export interface SimulatedHost {
  readonly host: Host
  readonly link: HostLink
}

/** As it comes over the wire: encoded, and read again. */
function wired<S extends DescMessage>(schema: S, init: MessageInitShape<S>): MessageShape<S> {
  return fromBinary(schema, toBinary(schema, create(schema, init)))
}

const GIB = 2n ** 30n

function capsulesOf(capsules: SeededHost['capsules']) {
  return create(ListCapsulesResponseSchema, {
    capsules: capsules.map(({ id: capsuleId, state }) => ({
      ...{ capsuleId, state, engine: 'fake', engineVersion: '1', kernelVersion: '6.12', agentVersion: '0.1.0' },
      ...{ path: 'hot', guestAddress: '10.0.0.1', diskBytes: 2n ** 20n },
    })),
  })
}

export function simulateHost({ id, capsules }: SeededHost): SimulatedHost {
  let listed: Uint8Array | undefined
  const client = {
    getHost: async () =>
      wired(GetHostResponseSchema, {
        ...{ hostId: id, agentVersion: '0.1.0', engine: 'fake', engineVersion: '1', cpus: 32, memoryBytes: 128n * GIB },
        ...{ memoryAvailableBytes: 64n * GIB, poolBytes: 1000n * GIB, poolFreeBytes: 500n * GIB, ready: true },
      }),
    listTemplates: async () =>
      wired(ListTemplatesResponseSchema, { templates: [{ name: 'minimal', aliases: ['base'], sizeBytes: GIB }] }),
    // Encoding it is its own work, not that of who asks.
    listCapsules: async () => {
      listed ??= toBinary(ListCapsulesResponseSchema, capsulesOf(capsules))
      return fromBinary(ListCapsulesResponseSchema, listed)
    },
    listSnapshots: async () => wired(ListSnapshotsResponseSchema, {}),
    listCheckpoints: async () => wired(ListCheckpointsResponseSchema, {}),
    getPoolUsage: async () => wired(GetPoolUsageResponseSchema, { measured: true }),
    // Nothing happens on it.
    watchCapsules: async function* (_: unknown, { signal }: { readonly signal: AbortSignal }) {
      await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      yield* []
    },
  }
  const host = new Host(client as never, `${id}:7443`, id)
  host.id = id
  const nothing = (): never => {
    throw new Error('a simulated host has no wire')
  }
  const transport = { unary: nothing, stream: nothing } as never
  return { host, link: { host, transport, openTunnel: nothing, close: () => {} } }
}
