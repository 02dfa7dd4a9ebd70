import { AppError, errorText } from '@wrenn/base'
import { capsuleDefaults, type Ready } from '@wrenn/protocol'
import type { Host } from '../../host/host.js'
import { type Hosts, noHost } from '../../host/hosts.js'
import { type Db, pingDatabase } from '../../store/database.js'

const CHECK_TIMEOUT_MS = 2_500

type Check = Ready['checks']['host']

/** Whether a create would work, part by part. */
export class Readiness {
  readonly #db: Db
  readonly #hosts: Hosts

  constructor(db: Db, hosts: Hosts) {
    this.#db = db
    this.#hosts = hosts
  }

  /** Never throws: what cannot be asked is a check that is not ok, with a sentence. */
  async check(): Promise<Ready> {
    const [database, [host, template]] = await Promise.all([this.#checkDatabase(), this.#checkHosts()])
    return { ready: database.ok && host.ok && template.ok, checks: { database, host, template } }
  }

  async #checkDatabase(): Promise<Check> {
    try {
      await within(pingDatabase(this.#db))
      return { ok: true }
    } catch (error) {
      return { ok: false, reason: `The database does not answer: ${errorText(error)}` }
    }
  }

  /** One host that can create a capsule is enough, and silent ones are not waited for then. */
  async #checkHosts(): Promise<[host: Check, template: Check]> {
    const { all } = this.#hosts
    if (all.length === 0) return unknownFor(noHost())
    const checks = all.map((host) => this.#checkHost(host))
    const good = checks.map(async (check) => {
      const [host, template] = await check
      if (!host.ok || !template.ok) throw new Error('not this one')
      return [host, template] satisfies [Check, Check]
    })
    return await Promise.any(good).catch(async () => await bestOf(checks))
  }

  async #checkHost(host: Host): Promise<[host: Check, template: Check]> {
    try {
      const status = await within(host.status())
      const details = {
        host_id: status.hostId,
        agent_version: status.agentVersion,
        engine: status.engine,
        engine_version: status.engineVersion,
        engine_reason: status.engineReason,
        running_capsules: status.runningCapsules,
        pool_free_bytes: Number(status.poolFreeBytes),
        memory_available_bytes: Number(status.memoryAvailableBytes),
        pools: status.pools.map(({ template, vcpus, memoryMib, hot, target }) => ({
          template,
          vcpus,
          memory_mb: memoryMib,
          hot,
          target,
        })),
      }
      const template: Check = status.ready
        ? { ok: true }
        : { ok: false, reason: status.notReadyReason || `The template ${capsuleDefaults.template} is not ready yet.` }
      return [{ ok: true, details }, template]
    } catch (error) {
      return unknownFor(AppError.from(error))
    }
  }
}

function unknownFor({ message: reason }: AppError): [host: Check, template: Check] {
  return [
    { ok: false, reason },
    { ok: false, reason: 'Unknown while the host does not answer.' },
  ]
}

/** Of hosts of which none can: one that answers, else the first. */
async function bestOf(checks: readonly Promise<[Check, Check]>[]): Promise<[host: Check, template: Check]> {
  const [first = unknownFor(noHost()), ...others] = await Promise.all(checks)
  return [first, ...others].find(([host]) => host.ok) ?? first
}

async function within<T>(task: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const timeUp = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new AppError('timeout', `No answer in ${CHECK_TIMEOUT_MS} ms.`)), CHECK_TIMEOUT_MS)
  })
  try {
    return await Promise.race([task, timeUp])
  } finally {
    clearTimeout(timer)
  }
}
