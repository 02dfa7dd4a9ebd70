import { AppError, errorText, inSpan, type Span, type Tracer } from '@wrenn/base'
import { errorKind } from '@wrenn/protocol'
import { writeAudit } from '../../store/audit.js'
import type { BuildReason, TemplateBuildRow } from '../../store/schema.js'
import { endHeldBuild, postponeBuild, renewBuild, takeBuild } from '../../store/template-builds.js'
import { Rounds } from '../rounds.js'
import { type AttemptDeps, BuildAttempt, NotHeld, tooLate } from './build-attempt.js'
import { storable } from './plain-text.js'

/** How long a build of a process that died waits for another one. */
const LEASE_MS = 15_000
/** So soon a build is given up that was cancelled elsewhere. */
const RENEW_MS = 1_000
const MAX_FAILURES = 5
const FIRST_DELAY_MS = 2_000
const MAX_DELAY_MS = 60_000
const MAX_REASON_LENGTH = 2_000

interface BuildRunnerDeps extends AttemptDeps {
  readonly lookEveryMs: number
  readonly tracer: Tracer
}

/**
 * Carries out the builds that wait in the database, as one of several that may. A build whose process dies is taken up by another, or by
 * the next start, from the last step whose result was kept.
 */
export class BuildRunner {
  readonly #deps: BuildRunnerDeps
  readonly #rounds: Rounds
  readonly #running = new Map<string, Running>()

  constructor(deps: BuildRunnerDeps) {
    this.#deps = deps
    const onFailure = (error: unknown): void =>
      deps.logger.warn({ error: errorText(error) }, 'template_build.round_failed')
    this.#rounds = new Rounds(() => this.#round(), deps.lookEveryMs, onFailure)
  }

  start(): void {
    this.#rounds.start()
  }

  /** Looks now for builds that wait, rather than with the next round. */
  look(): void {
    this.#rounds.hurry()
  }

  /** Leaves its builds to others, which find them at once. */
  async stop(): Promise<void> {
    await this.#rounds.stop()
    const running = [...this.#running.values()]
    for (const { abort } of running) abort.abort(new Stopped())
    await Promise.all(running.map(({ done }) => done))
  }

  async #round(): Promise<void> {
    const { db, limits } = this.#deps
    while (this.#running.size < limits.concurrency && !this.#rounds.signal.aborted) {
      const build = await takeBuild(db, LEASE_MS, limits.timeoutMs)
      if (build === undefined) return
      const abort = new AbortController()
      // What comes of it is recorded there; a record that fails is left to who takes the build next.
      const done = this.#measured(build, abort)
        .catch((error: unknown) => this.#warn(build, error, 'template_build.not_recorded'))
        .finally(() => {
          this.#running.delete(build.id)
          this.look() // one may have waited for its place
        })
      this.#running.set(build.id, { abort, done })
    }
  }

  /** A trace of its own: a build waits its turn, and another process may have taken it. */
  async #measured(build: TemplateBuildRow, abort: AbortController): Promise<void> {
    const { tracer } = this.#deps
    const fields = {
      'wrenn.build_id': build.id,
      'wrenn.team_id': build.team_id,
      'wrenn.attempt': build.attempts,
      'wrenn.request_id': build.actor?.requestId,
    }
    await tracer.apart(() => inSpan(tracer, 'build', { fields }, (span) => this.#carryOut(build, abort, span)))
  }

  async #carryOut(build: TemplateBuildRow, abort: AbortController, span: Span): Promise<void> {
    const { plan, id: buildId, attempts } = build
    if (plan === null) throw new Error(`the build ${buildId} has no plan`)
    const startedAt = performance.now()
    using _lease = this.#hold(build, abort)
    const attempt = new BuildAttempt(this.#deps, build, plan, abort.signal)
    let outcome = 'ready'
    try {
      abort.signal.throwIfAborted()
      await attempt.run()
    } catch (thrown) {
      const reason: unknown = abort.signal.aborted ? abort.signal.reason : thrown
      outcome = await this.#failed(attempt, build, reason)
      if (outcome === 'error') span.fail(AppError.from(reason).code)
    } finally {
      await attempt.log.close()
    }
    span.set({ 'wrenn.outcome': outcome })
    const ms = Math.round(performance.now() - startedAt)
    this.#deps.logger.info({ buildId, attempts, outcome, ms }, 'template_build.ended')
  }

  /** Keeps the build this process's own, and ends the attempt when it is not, or its time is over. */
  #hold(build: TemplateBuildRow, abort: AbortController): Disposable {
    const { db, limits } = this.#deps
    let heldAt = performance.now()
    let isRenewing = false
    const renew = async (): Promise<void> => {
      const askedAt = performance.now()
      isRenewing = true
      try {
        if (await renewBuild(db, build, LEASE_MS)) heldAt = askedAt
        else abort.abort(new NotHeld())
      } catch {
        // A database that is away for a moment says nothing about the build.
        if (performance.now() - heldAt > LEASE_MS) abort.abort(new NotHeld())
      }
      isRenewing = false
    }
    const renewal = setInterval(() => {
      if (!isRenewing) void renew()
    }, RENEW_MS)
    const leftMs = (build.deadline_at?.getTime() ?? 0) - Date.now()
    const overdue = setTimeout(() => abort.abort(tooLate(limits)), Math.max(0, leftMs))
    return {
      [Symbol.dispose]: () => {
        clearInterval(renewal)
        clearTimeout(overdue)
      },
    }
  }

  /** @returns what became of the build */
  async #failed(attempt: BuildAttempt, build: TemplateBuildRow, thrown: unknown): Promise<string> {
    const { db } = this.#deps
    if (thrown instanceof NotHeld) return 'not_held'
    if (thrown instanceof Stopped) {
      await attempt.log.close()
      await postponeBuild(db, build, 0, false)
      return 'left'
    }
    const error = AppError.from(thrown)
    if (error.code === 'internal') this.#warn(build, error.cause, 'template_build.broken')
    if (errorKind(error.code).retryable && build.failures + 1 < MAX_FAILURES) {
      const delayMs = Math.min(FIRST_DELAY_MS * 2 ** Math.min(build.failures, 10), MAX_DELAY_MS)
      attempt.log.say(attempt.step, `${error.message} It is tried again in ${delayMs / 1000} s.`, 'warn')
      await attempt.log.close()
      await postponeBuild(db, build, delayMs, true)
      return 'postponed'
    }
    attempt.log.say(attempt.step, error.message, 'error')
    await attempt.log.close()
    const { step, line } = attempt
    await this.#end(build, { message: storable(error.message.slice(0, MAX_REASON_LENGTH)), step, line })
    return 'error'
  }

  async #end(build: TemplateBuildRow, reason: BuildReason): Promise<void> {
    const { team_id: teamId, name, id, actor } = build
    await this.#deps.db.transaction().execute(async (tx) => {
      if (!(await endHeldBuild(tx, build, { state: 'error', reason }))) return
      const resource = { type: 'template', id: name } as const
      const entry = {
        teamId,
        actor: actor ?? undefined,
        action: 'template.built',
        resource,
        outcome: 'failure',
      } as const
      await writeAudit(tx, { ...entry, details: { build_id: id, step: reason.step } })
    })
  }

  #warn({ id }: TemplateBuildRow, error: unknown, event: string): void {
    this.#deps.logger.warn({ buildId: id, error: errorText(error) }, event)
  }
}

interface Running {
  readonly abort: AbortController
  readonly done: Promise<void>
}

/** The process stops; the build does not. */
class Stopped extends Error {}
