import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText } from '@wrenn/base'
import { pauseReasons } from '@wrenn/protocol'
import { z } from 'zod'
import type { CapsuleRecord } from '../types.js'
import type { StateManifest } from './states.js'

/** Beside the files of a state that leaves its host. */
export const PORTABLE = 'capsule.json'
/** Another host has these by the same name, or gets them. */
const LAYER_PATH = /^layers\/([0-9a-f]{64})$/

const timings = z.array(z.object({ step: z.string(), ms: z.number() }))

/** Fields are never renamed: states that earlier releases have stored must load. */
const portableSchema = z.object({
  format: z.literal(1),
  capsuleId: z.string(),
  teamId: z.string(),
  generation: z.number(),
  hostname: z.string(),
  egress: z.object({
    internet: z.boolean(),
    allow: z.array(z.string()),
    deny: z.array(z.string()),
    learn: z.boolean().optional(),
    intercept: z.boolean().optional(),
    authority: z.object({ cert: z.string(), key: z.string() }).optional(),
  }),
  egressRevision: z.number(),
  path: z.enum(['hot', 'restore', 'cold']),
  timings,
  createdAtMs: z.number(),
  lastActiveAtMs: z.number(),
  pauseReason: z.enum(pauseReasons).optional(),
  pausedAtMs: z.number().optional(),
  notice: z.string().optional(),
  parentId: z.string().optional(),
  snapshotId: z.string().optional(),
})
type Portable = z.infer<typeof portableSchema>

/** Writes what a capsule's record says that is so on every host. What only memory may have is not in it. */
export async function writePortable(dir: string, record: CapsuleRecord): Promise<void> {
  const { rules: _, ...egress } = record.egress
  const portable = portableSchema.parse({ ...record, egress, egressRevision: record.egressRevision ?? 0, format: 1 })
  await writeFile(join(dir, PORTABLE), JSON.stringify(portable), { mode: 0o600 })
}

/**
 * Makes a record of it on this host: paused. What is in a store, another host has written, and this one need not believe it more than that: it
 * names no file outside of the layers.
 * @throws AppError `snapshot_damaged`
 */
export async function readPortable(
  dir: string,
  manifest: StateManifest,
  here: Pick<CapsuleRecord, 'capsuleId' | 'bootId' | 'stored' | 'wakeAttempt' | 'durableAtMs' | 'loadedFrom'>,
): Promise<CapsuleRecord> {
  const portable = await parse(dir)
  if (portable.capsuleId !== here.capsuleId || manifest.capsuleId !== here.capsuleId) {
    throw notUsable(`it is of another capsule, ${portable.capsuleId}`)
  }
  const { template, vcpus, memoryMib, diskSizeMib, engine, engineVersion, kernelVersion, agentVersion, image } =
    manifest
  const { format: _, capsuleId: __, egressRevision, ...own } = portable
  return {
    ...own,
    ...{ template, vcpus, memoryMib, diskSizeMib, engine, engineVersion, kernelVersion, agentVersion, image },
    secret: manifest.secret,
    // What rules set is told anew, as after a start of the host agent.
    egressRevision: own.egress.intercept === true ? 0 : egressRevision,
    ...here,
    state: 'paused',
    files: 0,
    resources: undefined,
    exit: undefined,
  }
}

/** Digests of the read-only files that a state stands on. @throws AppError `snapshot_damaged` */
export function layersOf({ image }: Pick<StateManifest, 'image'>): readonly string[] {
  const paths = new Set([image.basePath, image.agentPath, image.kernelPath, image.initrdPath])
  return [...paths].map((path) => {
    const digest = LAYER_PATH.exec(path)?.[1]
    if (digest === undefined) throw notUsable(`it stands on ${path}, which is no layer`)
    return digest
  })
}

async function parse(dir: string): Promise<Portable> {
  try {
    return portableSchema.parse(JSON.parse(await readFile(join(dir, PORTABLE), 'utf8')))
  } catch (error) {
    throw notUsable(`${PORTABLE} cannot be understood (${errorText(error)})`)
  }
}

function notUsable(why: string): AppError {
  return new AppError('snapshot_damaged', `The stored state cannot be used: ${why}.`)
}
