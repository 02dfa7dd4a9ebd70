import { AppError } from '@wrenn/base'
import { capsuleDefaults } from '@wrenn/protocol'
import type { HostCalls } from '../../host/host.js'
import type { Db } from '../../store/database.js'
import type { BuildPlan, ProcessDefaults, SnapshotRow, TemplateBuildRow, TemplateDefaults } from '../../store/schema.js'
import { findSnapshotByName } from '../../store/snapshots.js'
import type { Origin } from './chain.js'

/** As whom and where steps run, where what they begin with does not say. */
export const FIRST_STATE: ProcessDefaults = { user: 'user', cwd: '/home/user', envs: {} }

/** What was run in a template when it was made. */
export type StartedBy = Pick<TemplateDefaults, 'startCmd' | 'readyCmd'>

/** Program and arguments of a container, which are both together, and what it says it serves. */
export interface ContainerCommand {
  readonly entrypoint: readonly string[]
  readonly command: readonly string[]
  /** Of TCP. */
  readonly ports: readonly number[]
}

/** What a build begins with, as it is now. */
export interface ResolvedOrigin extends Origin, ProcessDefaults {
  /** What its capsule is created from. */
  readonly template: string
  /** What of the request does not count, a sentence for people. */
  readonly note?: string
  /** It is an image of a registry that the host has under that name. */
  readonly isFetched?: boolean
  /** The host that has it, where there are several. */
  readonly hostId?: string
  /** What runs in it from its start on, and succeeds once that has done its work: of a template that an archive brings. */
  readonly startCmd?: string
  readonly readyCmd?: string
  /** What runs in it already, by these commands. */
  readonly started?: StartedBy
  /** What a container of the image would run. */
  readonly container?: ContainerCommand
  /** User and directory are as an image says it, which only its own files make sense of. */
  readonly isAsImageSays?: boolean
}

interface OriginDeps {
  readonly db: Db
  readonly host: HostCalls
  readonly diskSizeMib: number
}

/**
 * What a build begins with that needs no fetching.
 * @throws AppError `template_not_found`, `host_unavailable`
 */
export async function originOf(
  { db, host, diskSizeMib }: OriginDeps,
  { team_id: teamId, vcpus, memory_mib: memoryMib }: Asked,
  { from }: Pick<BuildPlan, 'from'>,
): Promise<ResolvedOrigin> {
  const own = await findSnapshotByName(db, teamId, from)
  if (own !== undefined) return ofSnapshot(own, { vcpus, memoryMib })
  const template = await host.template(from)
  return {
    ...FIRST_STATE,
    template: template.name,
    identity: `${template.name} ${template.createdAtMs} ${template.sizeBytes}`,
    vcpus: vcpus ?? (template.defaultVcpus || capsuleDefaults.vcpus),
    memoryMib: memoryMib ?? (template.defaultMemoryMib || capsuleDefaults.memoryMib),
    diskSizeMib,
  }
}

type Asked = Pick<TemplateBuildRow, 'team_id' | 'vcpus' | 'memory_mib'>

interface Sizes {
  readonly vcpus: number | null
  readonly memoryMib: number | null
}

/** Memory and disk of a snapshot have their sizes already. */
function ofSnapshot(snapshot: SnapshotRow, asked: Sizes): ResolvedOrigin {
  const { id, name, state, vcpus, memory_mib: memoryMib, disk_size_mib: diskSizeMib, defaults } = snapshot
  if (state !== 'ready') throw new AppError('template_not_found', `There is no template "${name}".`)
  const fits = (asked.vcpus ?? vcpus) === vcpus && (asked.memoryMib ?? memoryMib) === memoryMib
  const note = `CPUs and memory are those of ${name}: ${vcpus} and ${memoryMib} MiB.`
  const base = { template: name, identity: id, vcpus, memoryMib, diskSizeMib, ...(fits ? {} : { note }) }
  const { user, cwd, envs, ...started } = defaults ?? { ...FIRST_STATE }
  return { user, cwd, envs, ...base, started }
}
