import { capsuleStates, type HostHealth, type PlatformHealth } from '@wrenn/protocol'
import { Gauge, Histogram, type OpenMetricsContentType, type Registry } from 'prom-client'
import type { EndedOperation } from '../domain/operations/index.js'
import type { PlatformCounts } from '../domain/platform/index.js'
import type { Services } from './context.js'

/** What of a host is a number, and how it is called. */
const hostMetrics: Readonly<Record<string, readonly [help: string, of: (host: HostHealth) => number | undefined]>> = {
  wrenn_host_up: ['Whether the host answers.', (host) => Number(host.answers)],
  wrenn_host_ready: ['Whether the host can create capsules.', ({ status }) => Number(status?.ready ?? false)],
  wrenn_host_capsules: ['Capsules of the host that have not ended.', (host) => host.capsules],
  wrenn_host_capsules_running: ['Capsules of the host that are meant to run.', (host) => host.running_capsules],
  wrenn_host_used_vcpus: ['vCPUs of running capsules.', (host) => host.used_vcpus],
  wrenn_host_used_memory_bytes: ['Memory of running capsules.', (host) => host.used_memory_mb * 2 ** 20],
  wrenn_host_cpus: ['CPUs of the host.', ({ status }) => status?.cpus],
  wrenn_host_memory_bytes: ['Memory of the host.', ({ status }) => status?.memory_bytes],
  wrenn_host_memory_available_bytes: [
    'Memory of the host that is available.',
    ({ status }) => status?.memory_available_bytes,
  ],
  wrenn_host_pool_bytes: ['Size of the pool.', ({ status }) => status?.pool_bytes],
  wrenn_host_pool_free_bytes: ['Room in the pool.', ({ status }) => status?.pool_free_bytes],
}

/**
 * Registers the numbers of the platform. What is counted in the database or asked of hosts is so when the result is called, which says
 * what cannot be told in `wrenn_database_up` and `wrenn_host_up` and never throws.
 */
export function watchPlatform(
  registry: Registry<OpenMetricsContentType>,
  { platformWatch, onOperationEnd, version, logger }: Services,
): () => Promise<void> {
  const gauge = <T extends string = never>(name: string, help: string, ...labelNames: T[]) =>
    new Gauge({ name, help, labelNames, registers: [registry] })
  gauge('wrenn_build_info', 'The version of this control plane.', 'version').set({ version }, 1)
  const isUp = gauge('wrenn_database_up', 'Whether the database answers.')
  const latency = gauge('wrenn_database_latency_seconds', 'Time of the database to answer.')
  const replicas = gauge('wrenn_control_planes', 'Control planes that share the database.')
  const problems = gauge('wrenn_problems', 'What is wrong with the platform now.', 'severity')
  const capsules = gauge('wrenn_capsules', 'Capsules of all teams that are not stopped.', 'state')
  const operations = gauge('wrenn_operations_running', 'Operations under way.', 'kind')
  const builds = gauge('wrenn_template_builds', 'Builds of templates that have not ended.', 'state')
  const waiting = gauge('wrenn_mails_waiting', 'Mails that wait to be sent.')
  const givenUp = gauge('wrenn_mails_given_up', 'Mails of the last 24 hours that were given up.')
  const lagoWaiting = gauge('wrenn_lago_events_waiting', 'Events of usage that Lago has not taken; 0 without one.')
  const lagoRefused = gauge('wrenn_lago_events_refused', 'Those of them that it refused for themselves.')
  const lagoLag = gauge('wrenn_lago_lag_seconds', 'Age of the oldest event that waits for Lago.')
  const hosts = Object.entries(hostMetrics).map(([name, [help, of]]) => [gauge(name, help, 'host'), of] as const)
  const durations = new Histogram({
    name: 'wrenn_operation_seconds',
    help: 'Time from the request of an operation to its end, of those that this control plane has ended.',
    labelNames: ['kind', 'outcome'],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
    registers: [registry],
  })
  onOperationEnd(({ kind, outcome, seconds }: EndedOperation) => durations.observe({ kind, outcome }, seconds))

  const showHealth = (health: PlatformHealth): void => {
    latency.set(health.database.latency_ms / 1000)
    replicas.set(health.control_plane.replicas)
    waiting.set(health.mail.waiting)
    givenUp.set(health.mail.given_up)
    lagoWaiting.set(health.lago?.waiting ?? 0)
    lagoRefused.set(health.lago?.refused ?? 0)
    lagoLag.set(ageSec(health.lago?.oldest_waiting_at))
    for (const severity of ['error', 'warning'] as const)
      problems.set({ severity }, health.problems.filter((problem) => problem.severity === severity).length)
    for (const [metric, of] of hosts) {
      metric.reset()
      for (const host of health.hosts) {
        const value = of(host)
        if (value !== undefined) metric.set({ host: host.id ?? host.address }, value)
      }
    }
  }
  const showCounts = (counts: PlatformCounts): void => {
    for (const metric of [capsules, operations, builds]) metric.reset()
    for (const state of capsuleStates) if (state !== 'stopped') capsules.set({ state }, 0)
    for (const { label, count } of counts.capsules) capsules.set({ state: label }, count)
    for (const { label, count } of counts.operations) operations.set({ kind: label }, count)
    for (const { label, count } of counts.builds) builds.set({ state: label }, count)
  }
  return async () => {
    try {
      const [health, counts] = await Promise.all([platformWatch.look(), platformWatch.counts()])
      showHealth(health)
      showCounts(counts)
      isUp.set(1)
    } catch (error) {
      logger.debug({ error }, 'metrics.incomplete')
      isUp.set(0)
    }
  }
}

function ageSec(at: string | undefined): number {
  return at === undefined ? 0 : Math.max(0, (Date.now() - Date.parse(at)) / 1000)
}
