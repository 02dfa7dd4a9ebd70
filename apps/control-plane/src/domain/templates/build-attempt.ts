import { setTimeout as delay } from 'node:timers/promises'
import { AppError, abortable, isErrno, type Logger, type ReachStep } from '@wrenn/base'
import { capsuleDefaults, createCapsuleSchema, type ErrorCode } from '@wrenn/protocol'
import { sql } from 'kysely'
import type { BuildLimits } from '../../config.js'
import type { Hosts } from '../../host/hosts.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import { findCreate } from '../../store/operations.js'
import type {
  Actor,
  BuildPlan,
  BuildStep,
  CapsuleRow,
  ProcessDefaults,
  SnapshotRow,
  TemplateBuildRow,
  TemplateDefaults,
} from '../../store/schema.js'
import { lockSnapshot, patchSnapshot } from '../../store/snapshots.js'
import { findStepResults, touchStepResult } from '../../store/step-results.js'
import { endHeldBuild, findTraceBefore, lockHeldBuild, patchHeldBuild } from '../../store/template-builds.js'
import type { Capsules, Lifecycle, Wake } from '../capsules/index.js'
import type { Placement } from '../hosts/index.js'
import type { Snapshots } from '../points/index.js'
import type { Keyring } from '../secrets/index.js'
import type { BuildFiles } from './build-files.js'
import { BuildLog } from './build-log.js'
import { missReasons, traceOf } from './cache-reasons.js'
import { cacheableSteps, isKept } from './chain.js'
import { BuildGuest, SMALL_ANSWER_BYTES } from './guest.js'
import { beginAsImageSays, imageOrigin } from './image-origin.js'
import { originOf, type ResolvedOrigin } from './origin.js'
import type { RegistryLogins } from './registry-logins.js'
import { openSecret } from './secrets.js'
import { keepStageFiles } from './stage-files.js'
import { missingFiles, type PlannedStage, planStages } from './stages.js'
import { startAndWait, startOf } from './start-command.js'
import { runStep, type StepContext, shown } from './steps.js'
import { assignNames, nameTaken, UNIQUE_VIOLATION } from './template-tags.js'

const LOOK_EVERY_MS = 50
/** Of the life of a build's capsule beyond the build's own end, should nobody be left to end it. */
const SPARE_SEC = 60

export interface AttemptDeps {
  readonly db: Db
  readonly host: Hosts
  readonly capsules: Capsules
  readonly snapshots: Snapshots
  readonly lifecycle: Lifecycle
  readonly keyring: Keyring
  readonly wake: Wake
  readonly files: BuildFiles
  readonly logins: RegistryLogins
  readonly limits: BuildLimits
  readonly placement: Placement
  /** Of a template that is built from a built-in one. */
  readonly diskSizeMib: number
  /** How long making a snapshot may take. */
  readonly snapshotWaitMs: number
  readonly logger: Logger
  /** Called at each step with its name, where tests break the process off. */
  readonly reach: ReachStep
}

/** Why a build ends whose time is over. */
export function tooLate({ timeoutMs }: BuildLimits): AppError {
  return new AppError('build_failed', `The build took longer than ${timeoutMs / 1000} s (WRENN_BUILD_TIMEOUT_SEC).`)
}

/** The capsule of a build was made and did not come to run. */
class NotStarted extends AppError {
  /** Whether it is the host that starts nothing now, a fault of what it was started from, or not known. */
  readonly fault: 'host' | 'origin' | 'unknown'
  /** Whether what it was started from is not what was saved. */
  readonly isDamage: boolean

  constructor(message: string, why: string | undefined) {
    super('engine_failure', `The capsule of the build did not start: ${message}`)
    this.fault = OF_THE_HOST.has(why ?? '') ? 'host' : OF_THE_ORIGIN.has(why ?? '') ? 'origin' : 'unknown'
    this.isDamage = why === 'snapshot_damaged'
  }
}

/** Why a host starts nothing now, whatever it is asked to start from. */
const OF_THE_HOST: ReadonlySet<string> = new Set<ErrorCode>([
  'host_unavailable',
  'no_hosts_available',
  'pool_exhausted',
  'disk_full',
  'timeout',
])

/** Why a host is given nothing to start. */
const OF_THE_PLACEMENT = ['host_unavailable', 'no_hosts_available'] as const satisfies readonly ErrorCode[]

function isOfHost(error: unknown): error is AppError {
  return error instanceof NotStarted ? error.fault === 'host' : AppError.is(error, ...OF_THE_PLACEMENT)
}

/** Why nothing starts from one snapshot, on whatever day. */
const OF_THE_ORIGIN: ReadonlySet<string> = new Set<ErrorCode>([
  'snapshot_damaged',
  'state_not_loadable',
  'template_not_found',
])

/** The build was cancelled, or somebody else carries it out: nothing of this attempt counts. */
export class NotHeld extends Error {}

interface Progress {
  /** How many steps are done. */
  readonly done: number
  readonly state: ProcessDefaults
  readonly capsule: CapsuleRow
}

/** What a stage does not start from. */
interface Avoided {
  /** Results from which nothing started, by id. */
  readonly unusable: ReadonlyMap<string, SnapshotRow>
  /** Hosts that started nothing. */
  readonly hosts: ReadonlySet<string>
}

const NOTHING_AVOIDED: Avoided = { unusable: new Map(), hosts: new Set() }

interface Kept {
  /** How many steps the result has behind it. */
  readonly done: number
  readonly result?: SnapshotRow
}

/** Of results, the oldest first, the one with the most of these steps: of several with as many the newest. */
function furthest(hashes: readonly string[], results: readonly SnapshotRow[]): Kept {
  const byHash = new Map(results.map((result) => [result.steps_hash, result] as const))
  const at = hashes.findLastIndex((hash) => byHash.has(hash))
  const result = byHash.get(hashes[at] ?? null)
  return result === undefined ? { done: 0 } : { done: at + 1, result }
}

/** Whether a host other than this one takes a capsule. */
function isElsewhere(takers: ReadonlySet<string> | undefined, hostId: string): boolean {
  return [...(takers ?? [])].some((id) => id !== hostId)
}

/** Whether another one does and this one does not. */
function isBetterElsewhere(takers: ReadonlySet<string> | undefined, hostId: string): boolean {
  return takers?.has(hostId) === false && isElsewhere(takers, hostId)
}

/** One attempt at a build, from what is kept of its steps to its template. */
export class BuildAttempt {
  readonly #deps: AttemptDeps
  readonly #build: TemplateBuildRow
  readonly #plan: BuildPlan
  readonly #signal: AbortSignal
  /** The capsule of the build as of now, or of the attempt before. */
  #capsuleId: string | null
  readonly log: BuildLog
  /** Where it is, as clients are told: `base`, the number of a step, `finalize`. */
  step = 'base'
  /** Of the file that this step was written in. */
  line: number | undefined
  /** Of all stages. */
  #steps = 0
  /** Steps that are not done, because of what earlier builds have kept. */
  #cached = 0
  /** What stages begin with, by its name: many may begin with the same. */
  readonly #origins = new Map<string, Promise<ResolvedOrigin>>()

  constructor(deps: AttemptDeps, build: TemplateBuildRow, plan: BuildPlan, signal: AbortSignal) {
    this.#deps = deps
    this.#build = build
    this.#plan = plan
    this.#signal = signal
    this.#capsuleId = build.capsule_id
    this.log = new BuildLog({ db: deps.db, logger: deps.logger, maxBytes: deps.limits.logBytes }, build)
  }

  /** @throws AppError why it failed; NotHeld; whatever `signal` was aborted with */
  async run(): Promise<void> {
    if (this.#build.attempts > 1) this.log.say(this.step, 'The build was interrupted and goes on.', 'warn')
    const { reach } = this.#deps
    reach('build:taken')
    const stages = await this.#stages()
    reach('build:planned')
    const missing = await missingFiles(
      stages,
      (stage) => this.#doneOf(stage),
      (hash) => this.#hasFiles(hash),
    )
    for (const stage of stages.slice(0, -1)) {
      const wanted = missing.get(stage.at)
      if (wanted === undefined) {
        this.#cached += stage.steps.length
        continue
      }
      const { guest } = await this.#runStage(stage)
      for (const [hash, source] of wanted) await keepStageFiles(guest, this.#deps.files, source, hash)
      reach('build:stage_kept')
    }
    const last = stages.at(-1)
    if (last === undefined) throw new Error('a build has a stage')
    const { guest, state } = await this.#runStage(last)
    this.#at('finalize')
    const { readyWithinMs } = this.#deps.limits
    const deps = { guest, log: this.log, step: this.step, readyWithinMs, signal: this.#signal }
    const commands = await startAndWait(deps, startOf(this.#plan, last.origin), state)
    reach('build:finished')
    const snapshot = await this.#keep(guest)
    reach('build:saved')
    this.log.say(this.step, `Everything is done; the template is called ${this.#build.name} now.`)
    await this.log.close()
    await this.#publish(snapshot, { ...state, ...last.origin.started, ...commands })
    reach('build:published')
  }

  async #stages(): Promise<readonly PlannedStage[]> {
    const { host } = this.#deps
    const stages = await planStages(
      this.#plan,
      (from) => this.#originOnce(from),
      async (template) => (await host.findTemplate(template)) !== undefined,
    )
    for (const { origin } of stages) if (origin.note !== undefined) this.log.say(this.step, origin.note, 'warn')
    this.#steps = stages.reduce((sum, { steps }) => sum + steps.length, 0)
    return stages
  }

  async #originOnce(from: string): Promise<ResolvedOrigin> {
    const origin = this.#origins.get(from) ?? this.#origin(from)
    this.#origins.set(from, origin)
    return await origin
  }

  async #origin(from: string): Promise<ResolvedOrigin> {
    const image = new Map(Object.entries(this.#plan.images ?? {})).get(from)
    if (image === undefined) return await originOf(this.#deps, this.#build, { from })
    const onProgress = (sentence: string): void => this.log.say('base', sentence)
    const { vcpus, memory_mib: memoryMib } = this.#build
    const demand = {
      vcpus: vcpus ?? capsuleDefaults.vcpus,
      memoryMib: memoryMib ?? capsuleDefaults.memoryMib,
      hostTags: this.#plan.hostTags,
    }
    const host = await this.#deps.placement.any(demand)
    const origin = await imageOrigin({ ...this.#deps, host, signal: this.#signal, onProgress }, this.#build, image)
    return { ...origin, ...(host.joinedId === undefined ? {} : { hostId: host.joinedId }) }
  }

  #at(step: string, line?: number): void {
    this.step = step
    this.line = line
  }

  async #runStage(stage: PlannedStage) {
    this.#at('base')
    const started = await this.#start(stage)
    const guest = new BuildGuest(this.#deps, started.capsule, this.#signal)
    const isFirst = started.done === 0 && stage.origin.isAsImageSays === true
    const state = isFirst ? await beginAsImageSays(guest, started.state, stage.from) : started.state
    return await this.#runSteps(guest, { ...started, state }, stage)
  }

  /** Files of a stage that are kept. */
  async #hasFiles(hash: string): Promise<boolean> {
    return !this.#plan.force && (await this.#deps.files.has(this.#build.team_id, hash))
  }

  /** A result that is planned on counts as used: whatever copies from the stage stands on it. */
  async #doneOf(stage: PlannedStage): Promise<number> {
    const { done, result } = await this.#resultOf(stage)
    if (result !== undefined) await touchStepResult(this.#deps.db, result.id)
    return done
  }

  /**
   * The result of the most steps of a stage that there is; this build's own counts also where nothing kept is to be used. One that is on a host which takes
   * nothing now, while another does, is passed over.
   */
  async #resultOf({ origin, steps, hashes }: PlannedStage, { unusable, hosts }: Avoided = NOTHING_AVOIDED) {
    const usable = hashes.slice(0, cacheableSteps({ ...this.#plan, steps }))
    const found = (await findStepResults(this.#deps.db, this.#build.team_id, hashes))
      .filter(({ id }) => !unusable.has(id))
      .filter(({ steps_hash: hash, build_id: id }) => id === this.#build.id || usable.includes(hash ?? ''))
    const takers = found.length === 0 ? undefined : await this.#takers(origin)
    const isReachable = ({ host_id: id }: SnapshotRow): boolean =>
      id === null || !(hosts.has(id) || isBetterElsewhere(takers, id))
    const [any, best] = [furthest(hashes, found), furthest(hashes, found.filter(isReachable))]
    return { ...best, passed: any.done > best.done ? any : undefined }
  }

  async #takers({ vcpus, memoryMib }: ResolvedOrigin): Promise<ReadonlySet<string> | undefined> {
    return await this.#deps.placement.takers({ vcpus, memoryMib, hostTags: this.#plan.hostTags })
  }

  /** A capsule that has as many steps behind it as can be had. */
  async #start(stage: PlannedStage): Promise<Progress> {
    const { from, steps } = stage
    this.log.say('base', `FROM ${from}`)
    const { done, ...kept } = await this.#startFromWhatThereIs(stage)
    await this.#countCached(done)
    for (const [index, step] of steps.slice(0, done).entries()) {
      this.log.say(this.#numberOf(stage, index), `CACHED ${this.#called(stage, index)} ${shown(step)}`)
    }
    return { ...kept, done }
  }

  /** An attempt that goes on after another one would count what that one has done itself. */
  async #countCached(steps: number): Promise<void> {
    this.#cached += steps
    if (this.#build.cached_steps !== null) return
    if (!(await patchHeldBuild(this.#deps.db, this.#build, { cached_steps: this.#cached }))) throw new NotHeld()
  }

  async #startFromOrigin(stage: PlannedStage): Promise<Omit<Progress, 'done'>> {
    const { user, cwd, envs, template } = stage.origin
    try {
      return { state: { user, cwd, envs }, capsule: await this.#capsule(template, stage) }
    } catch (error) {
      if (error instanceof NotStarted && error.isDamage) throw new AppError('build_failed', error.message)
      throw error
    }
  }

  /** From the result of the most steps that can be used: no build starts again from one of which nothing starts while something else does. */
  async #startFromWhatThereIs(stage: PlannedStage): Promise<Progress> {
    const unusable = new Map<string, SnapshotRow>()
    const hosts = new Set<string>()
    let told: string | undefined
    let begun: Progress | undefined
    while (begun === undefined) {
      const { done, result, passed } = await this.#resultOf(stage, { unusable, hosts })
      if (passed?.result !== undefined && passed.result.id !== told) {
        told = passed.result.id
        this.#sayPassedOver(stage, passed.done - 1, passed.result)
      }
      if (result === undefined || result.defaults === null) break
      await touchStepResult(this.#deps.db, result.id)
      try {
        begun = { done, state: result.defaults, capsule: await this.#capsule(result.name, stage) }
      } catch (error) {
        if (isOfHost(error)) {
          const { host_id: hostId } = result
          if (hostId === null || !isElsewhere(await this.#takers(stage.origin), hostId)) throw error
          hosts.add(hostId)
          continue
        }
        if (!(error instanceof NotStarted)) throw error
        this.#sayUnusable(stage, done - 1, error)
        if (error.fault === 'origin') await this.#forget(result.id)
        // What its steps copy from other stages is there in most cases; where it is not, the step says so, and the next attempt gathers it.
        unusable.set(result.id, result)
      }
    }
    begun ??= { done: 0, ...(await this.#startFromOrigin(stage)) }
    const isAlone = this.#deps.host.only !== undefined
    const { host_id: startsOn } = begun.capsule
    // Something starts on its host, so it was not the host.
    for (const { id, host_id: on } of unusable.values()) if (isAlone || on === startsOn) await this.#forget(id)
    return begun
  }

  async #forget(resultId: string): Promise<void> {
    await patchSnapshot(this.#deps.db, resultId, { steps_hash: null })
  }

  #sayUnusable(stage: PlannedStage, index: number, { message }: NotStarted): void {
    const named = this.#keptOf(stage, index)
    this.log.say('base', `${named} cannot be used, and the step is done again: ${message}`, 'warn')
  }

  #sayPassedOver(stage: PlannedStage, index: number, { host_id: hostId }: SnapshotRow): void {
    const named = this.#keptOf(stage, index)
    this.log.say('base', `${named} stays on ${hostId}, which takes no capsule now; another host does the step again.`)
  }

  #keptOf(stage: PlannedStage, index: number): string {
    const step = stage.steps[index]
    return `What was kept of${step === undefined ? '' : ` ${this.#called(stage, index)} ${shown(step)}`}`
  }

  /** A new capsule, once it runs. The one before is ended first. */
  async #capsule(template: string, { origin }: PlannedStage): Promise<CapsuleRow> {
    const { vcpus, memoryMib, diskSizeMib }: ResolvedOrigin = origin
    const { db, capsules, limits, reach } = this.#deps
    const { id: buildId, team_id: teamId, actor, name } = this.#build
    if (this.#capsuleId !== null) await this.#end(this.#capsuleId)
    this.#signal.throwIfAborted()
    // Long enough for the whole build, should nobody be left to end it.
    const spec = {
      ...createCapsuleSchema.parse({ template, vcpus, memory_mb: memoryMib, disk_size_mb: diskSizeMib }),
      name: `build-${name}`.slice(0, 64),
      auto_resume: true,
      isFetched: origin.isFetched === true && template === origin.template,
      isVerified: true,
      ...(template === origin.template ? { hostId: origin.hostId } : {}),
      host_tags: this.#plan.hostTags?.slice(),
      life: { lifetimeSec: Math.ceil(limits.timeoutMs / 1000) + SPARE_SEC, onEnd: 'kill' },
    } as const
    let capsule = await capsules.create(teamId, spec, {
      idempotencyKey: undefined,
      waitMs: 0,
      actor: actorOf(actor, buildId),
      // Whoever goes on with the build, or clears up after it, finds each capsule that was made for it.
      within: async (tx, id) => {
        if (!(await patchHeldBuild(tx, this.#build, { capsule_id: id }))) throw new NotHeld()
      },
    })
    this.#capsuleId = capsule.id
    reach('build:created')
    while (capsule.state === 'pending' || capsule.state === 'starting') {
      await delay(LOOK_EVERY_MS, undefined, { signal: this.#signal })
      capsule = await capsules.get(teamId, capsule.id)
    }
    // What kept it from starting may pass.
    if (capsule.state === 'error' && capsule.started_at === null) {
      throw new NotStarted(capsule.exit?.message ?? '', (await findCreate(db, capsule.id))?.error?.code)
    }
    reach('build:started')
    return await capsules.running(teamId, capsule.id)
  }

  async #end(capsuleId: string): Promise<void> {
    await this.#deps.capsules.destroy(this.#build.team_id, capsuleId, { waitMs: 0, reason: 'build' }).catch((error) => {
      if (!AppError.is(error, 'capsule_not_found')) throw error
    })
  }

  async #runSteps(first: BuildGuest, { done, state: from }: Progress, stage: PlannedStage) {
    const { steps, hashes } = stage
    const reasons = await this.#reasons(stage, done)
    const shared = {
      log: this.log,
      openFiles: (hash: string) => this.#files(hash),
      isDockerfile: this.#plan.isDockerfile === true,
      secret: (id: string) => openSecret(this.#deps.keyring, this.#build.id, this.#plan, id),
    }
    let [guest, state] = [first, from]
    for (const [index, step] of steps.entries()) {
      if (index < done) continue
      this.#signal.throwIfAborted()
      this.#at(this.#numberOf(stage, index), step.line)
      const why = reasons[index] === undefined ? '' : ` (${reasons[index]})`
      const startedAt = performance.now()
      this.log.say(this.step, `${this.#called(stage, index)} ${shown(step)}${why}`)
      this.#deps.reach('build:step_begun')
      state = await this.#runStep({ ...shared, guest }, step, state)
      this.#deps.reach('build:step_done')
      if (step.secrets !== undefined && step.secrets.length > 0) guest = await this.#anew(guest)
      const isLast = index === steps.length - 1
      if (isKept(step) && this.#deps.limits.cacheResults > 0)
        await this.#keepResult(guest, hashes[index], state, isLast)
      this.log.say(
        this.step,
        `DONE ${this.#called(stage, index)} ${((performance.now() - startedAt) / 1000).toFixed(1)} s`,
      )
    }
    return { guest, state }
  }

  async #runStep(context: StepContext, step: BuildStep, state: ProcessDefaults): Promise<ProcessDefaults> {
    try {
      return await runStep(context, step, state, this.step)
    } catch (error) {
      const isOfStage = step.stage !== undefined
      if (!isOfStage || (await this.#deps.files.has(this.#build.team_id, step.filesHash ?? ''))) throw error
      // The next attempt finds that they are not there, and gathers them.
      const text = 'What was kept of the stage that this step copies from is damaged or gone, and is made again.'
      throw new AppError('engine_failure', text, { cause: error })
    }
  }

  async #reasons(stage: PlannedStage, done: number) {
    const before = await findTraceBefore(this.#deps.db, this.#build)
    const now = this.#build.trace ?? traceOf(this.#plan)
    return missReasons(stage, done, { now, before, isForced: this.#plan.force })
  }

  /** The same guest, started from its disk: of what was in its memory nothing is in what is kept of it. */
  async #anew(guest: BuildGuest): Promise<BuildGuest> {
    const { lifecycle, capsules, snapshotWaitMs: waitMs } = this.#deps
    const { teamId, id } = guest.capsule
    await guest.answer({ cmd: '/bin/sh', args: ['-c', 'sync'] }, SMALL_ANSWER_BYTES)
    await abortable(lifecycle.pause(teamId, id, { waitMs }), this.#signal)
    // The start from the disk says something else of it, and nobody could tell any more.
    await guest.requireUnbroken()
    await abortable(lifecycle.resume(teamId, id, { from: 'disk', waitMs }), this.#signal)
    return new BuildGuest(this.#deps, await capsules.running(teamId, id), this.#signal)
  }

  async #files(hash: string) {
    return await this.#deps.files.open(this.#build.team_id, hash)
  }

  /** A result that cannot be kept, for lack of space above all, is none that the build lacks. */
  async #keepResult(
    guest: BuildGuest,
    hash: string | undefined,
    state: ProcessDefaults,
    isLast: boolean,
  ): Promise<void> {
    try {
      const { id } = await this.#keep(guest)
      this.#deps.reach('build:step_saved')
      const patch = { steps_hash: hash ?? null, defaults: JSON.stringify(state), used_at: sql<Date>`now()` }
      await patchSnapshot(this.#deps.db, id, patch)
      this.#deps.reach('build:step_kept')
    } catch (error) {
      const isFull = AppError.is(error, 'pool_exhausted')
      if (!isFull) throw error
      if (!isLast) this.log.say(this.step, `The result of this step is not kept: ${error.message}`, 'warn')
    }
  }

  async #keep(guest: BuildGuest): Promise<SnapshotRow> {
    this.#signal.throwIfAborted()
    const { snapshots, snapshotWaitMs: waitMs } = this.#deps
    const kept = await abortable(snapshots.keep(guest.capsule, { buildId: this.#build.id, waitMs }), this.#signal)
    await guest.requireUnbroken()
    return kept
  }

  /**
   * Gives the snapshot the names that the build is for, in one step with the end of the build: one that was cancelled, or is late, gives
   * none.
   */
  async #publish({ id }: SnapshotRow, state: TemplateDefaults): Promise<void> {
    const { team_id: teamId, name, tags, actor } = this.#build
    try {
      await this.#deps.db.transaction().execute(async (tx) => {
        const held = await lockHeldBuild(tx, this.#build)
        if (held === undefined) throw new NotHeld()
        if (held.isLate) throw tooLate(this.#deps.limits)
        const target = await lockSnapshot(tx, id)
        if (target?.state !== 'ready') throw new NotHeld()
        await patchSnapshot(tx, id, { defaults: JSON.stringify(state) })
        await assignNames(tx, { teamId, name }, target, tags)
        await endHeldBuild(tx, this.#build, { state: 'ready', snapshotId: id })
        const resource = { type: 'template', id: name } as const
        const details = { build_id: this.#build.id, snapshot_id: id }
        await writeAudit(tx, { teamId, actor: actor ?? undefined, action: 'template.built', resource, details })
      })
    } catch (error) {
      if (isErrno(error, UNIQUE_VIOLATION)) throw nameTaken(name)
      throw error
    }
  }

  /** Of all stages together. */
  #numberOf({ offset }: PlannedStage, index: number): string {
    return String(offset + index + 1)
  }

  #called(stage: PlannedStage, index: number): string {
    return `[${this.#numberOf(stage, index)}/${this.#steps}]`
  }
}

/** Who is told to have made the build's capsule. */
function actorOf(actor: Actor | null, buildId: string): Actor {
  return actor ?? { id: buildId, name: 'build', requestId: buildId, ip: '' }
}
