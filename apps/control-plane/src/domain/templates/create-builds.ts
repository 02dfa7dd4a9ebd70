import type { Logger, ReachStep, Tracer } from '@wrenn/base'
import type { BuildLimits, Limits } from '../../config.js'
import type { Hosts } from '../../host/hosts.js'
import type { Db } from '../../store/database.js'
import type { Capsules, Lifecycle, Wake } from '../capsules/index.js'
import type { Placement } from '../hosts/index.js'
import type { Snapshots } from '../points/index.js'
import type { Keyring } from '../secrets/index.js'
import { BuildFiles, UPLOAD_SPARE_MS } from './build-files.js'
import { BuildRunner } from './build-runner.js'
import { BuildHousekeeping } from './housekeeping.js'
import { RegistryLogins } from './registry-logins.js'
import { TemplateBuilds } from './template-builds.js'
import { TemplateTags } from './template-tags.js'
import { UploadLinks } from './upload-links.js'

interface BuildsDeps {
  readonly db: Db
  readonly host: Hosts
  readonly placement: Placement
  readonly capsules: Capsules
  readonly snapshots: Snapshots
  readonly lifecycle: Lifecycle
  readonly keyring: Keyring
  readonly wake: Wake
  readonly limits: Limits
  readonly buildLimits: BuildLimits
  /** How long making a snapshot may take. */
  readonly snapshotWaitMs: number
  readonly retentionMs: number
  readonly logger: Logger
  readonly tracer: Tracer
  readonly reach: ReachStep
  readonly lookEveryMs: number
}

interface Builds {
  readonly service: TemplateBuilds
  readonly tags: TemplateTags
  readonly logins: RegistryLogins
  start(): void
  /** Leaves builds that are under way to others. */
  stop(): Promise<void>
}

/** Wires what takes builds, carries them out and removes what they leave. Nothing runs before `start`. */
export function createBuilds(deps: BuildsDeps): Builds {
  const { db, buildLimits, limits } = deps
  const { filesDir: dir, uploadBytes, filesBytes, timeoutMs } = buildLimits
  const files = new BuildFiles({ dir, uploadBytes, filesBytes, freshMs: timeoutMs + UPLOAD_SPARE_MS })
  const logins = new RegistryLogins(deps)
  const shared = { ...deps, files, logins, limits: buildLimits }
  const runner = new BuildRunner({ ...shared, diskSizeMib: limits.defaultDiskSizeMib })
  const service = new TemplateBuilds({ ...deps, files, links: new UploadLinks(db), onPlanned: () => runner.look() })
  const housekeeping = new BuildHousekeeping(shared)
  return {
    service,
    tags: new TemplateTags(db),
    logins,
    start: () => {
      runner.start()
      housekeeping.start()
    },
    stop: async () => {
      await Promise.all([runner.stop(), housekeeping.stop()])
    },
  }
}
