import type { HealthProblem, HostHealth, PlatformHealth } from '@wrenn/protocol'
import { MIN_FREE } from '../hosts/index.js'

const SLOW_DATABASE_MS = 250
const LATE_MAIL_MS = 10 * 60_000
const LATE_LAGO_MS = 3600_000
/** Of many ids. */
const NAMED = 3

type Facts = Omit<PlatformHealth, 'problems'>

/**
 * What is wrong, the worst first, each with the next step.
 * @param reasons what is known of why a host does not answer or is not ready, as sentences
 */
export function problemsOf(facts: Facts, reasons: ReadonlyMap<HostHealth, string>, now: Date): HealthProblem[] {
  const found = [
    ...facts.hosts.flatMap((host) => problemsOfHost(host, reasons.get(host), facts.control_plane.version)),
    ...problemsOfDatabase(facts.database),
    ...problemsOfMail(facts.mail, now),
    ...problemsOfLago(facts.lago, now),
  ]
  return [
    ...found.filter(({ severity }) => severity === 'error'),
    ...found.filter(({ severity }) => severity !== 'error'),
  ]
}

function problemsOfHost(host: HostHealth, reason: string | undefined, version: string): HealthProblem[] {
  const name = host.id ?? `at ${host.address}`
  const because = reason === undefined ? '' : ` ${reason}`
  if (host.status === undefined) {
    const since = host.last_seen_at === undefined ? '' : ` since ${host.last_seen_at}`
    const message = `The host ${name} has not answered${since}; ${host.running_capsules} capsules are meant to run on it.${because}`
    return [error('host', message, 'Look at the log of its host agent, and run `wrenn doctor` on that machine.')]
  }
  const { status } = host
  const problems: HealthProblem[] = []
  if (!status.ready) {
    const message = `The host ${name} cannot create capsules yet.${because}`
    problems.push(
      error('host', message, 'A template that is being made takes minutes; else run `wrenn doctor` on that machine.'),
    )
  }
  if (status.pool_free_bytes < status.pool_bytes * MIN_FREE) {
    const message = `The pool of the host ${name} is ${percent(1 - status.pool_free_bytes / status.pool_bytes)} full; capsules are paused before it is.`
    problems.push(
      warning(
        'host',
        message,
        'Remove what nothing owns with `wrenn gc`, then checkpoints and snapshots that nobody needs.',
      ),
    )
  }
  if (status.memory_available_bytes < status.memory_bytes * MIN_FREE) {
    const message = `The host ${name} has ${percent(status.memory_available_bytes / status.memory_bytes)} of its memory left; capsules are paused before it runs out.`
    problems.push(warning('host', message, 'Pause capsules, or give the machine more memory.'))
  }
  const { unknown_capsules: unknown = [] } = host
  if (unknown.length > 0) {
    const some = unknown.slice(0, NAMED).join(', ')
    const message = `The host ${name} has ${unknown.length} capsules that the database does not know: ${some}${unknown.length > NAMED ? ', …' : ''}. They go on, and belong to nobody.`
    problems.push(
      warning(
        'host',
        message,
        'They were made after the backup that was restored: docs/backup.md. `wrenn host destroy-unknown` ends one.',
      ),
    )
  }
  if (host.agent_version !== undefined && host.agent_version !== version) {
    const message = `The host agent of ${name} is version ${host.agent_version}, the control plane ${version}.`
    problems.push(warning('host', message, 'Bring both to one version, as docs/upgrades.md says.'))
  }
  return problems
}

function problemsOfDatabase({
  pending_migrations: pending,
  latency_ms: latencyMs,
}: PlatformHealth['database']): HealthProblem[] {
  const problems: HealthProblem[] = []
  if (pending > 0) {
    const message = `The schema of the database is older than this control plane: ${pending} migrations are missing.`
    problems.push(error('database', message, 'See `wrenn db status`; a start of this version applies them.'))
  }
  if (latencyMs > SLOW_DATABASE_MS) {
    const message = `The database took ${Math.round(latencyMs)} ms to answer.`
    problems.push(warning('database', message, 'Look at the load of its machine, and at the network between.'))
  }
  return problems
}

function problemsOfMail(mail: PlatformHealth['mail'], now: Date): HealthProblem[] {
  const problems: HealthProblem[] = []
  const set = 'Set WRENN_SMTP_URL and WRENN_MAIL_FROM, as docs/mail.md says.'
  if (mail.via === 'none')
    problems.push(warning('mail', 'Mails are not sent: neither a mail server nor a folder is set.', set))
  if (mail.via === 'outbox') {
    problems.push(warning('mail', `Mails become files in ${mail.to} instead of being sent.`, set))
  }
  const oldest = mail.oldest_waiting_at === undefined ? now.getTime() : Date.parse(mail.oldest_waiting_at)
  if (mail.via === 'smtp' && now.getTime() - oldest > LATE_MAIL_MS) {
    const message = `${mail.waiting} mails wait for the mail server ${mail.to}, the oldest since ${mail.oldest_waiting_at}.`
    problems.push(
      warning('mail', message, 'Look for `mail.` in the log of the control plane: it says what the server answered.'),
    )
  }
  if (mail.given_up > 0) {
    const message = `${mail.given_up} mails of the last 24 hours were given up.`
    problems.push(
      warning('mail', message, 'Look for `mail.` in the log of the control plane: it says what the server answered.'),
    )
  }
  return problems
}

function problemsOfLago(lago: PlatformHealth['lago'], now: Date): HealthProblem[] {
  if (lago === undefined) return []
  const { to, waiting, refused, oldest_waiting_at: oldest, problem } = lago
  const because = problem === undefined ? '' : ` ${problem}`
  const step = 'See "Lago" in docs/usage.md, and look for `lago.` in the log of the control plane.'
  if (refused > 0) {
    const message = `Lago at ${to} refused ${refused} events of usage, which are tried again.${because}`
    return [warning('lago', message, step)]
  }
  if (oldest === undefined) {
    return problem === undefined ? [] : [warning('lago', `Usage cannot be told to Lago at ${to}.${because}`, step)]
  }
  if (now.getTime() - Date.parse(oldest) <= LATE_LAGO_MS) return []
  return [
    warning('lago', `${waiting} events of usage wait for Lago at ${to}, the oldest since ${oldest}.${because}`, step),
  ]
}

function error(part: HealthProblem['part'], message: string, nextStep: string): HealthProblem {
  return { severity: 'error', part, message, next_step: nextStep }
}

function warning(part: HealthProblem['part'], message: string, nextStep: string): HealthProblem {
  return { severity: 'warning', part, message, next_step: nextStep }
}

function percent(part: number): string {
  return `${Math.round(part * 100)} %`
}
