import { AppError, neverRangeOf, parseCidr, parseDomain } from '@wrenn/base'
import { type EgressPolicy, environmentBytes, MAX_CAPSULE_ENVIRONMENT_BYTES } from '@wrenn/protocol'
import type { Limits } from '../../config.js'

interface Sizes {
  readonly vcpus?: number | undefined
  readonly memory_mb?: number | undefined
  readonly disk_size_mb?: number | undefined
  readonly labels: Readonly<Record<string, string>>
  /** As every command gets them, those that a fork adds among them. */
  readonly envs: Readonly<Record<string, string>>
}

/** @throws AppError `invalid_request`, naming the field and the knob */
export function checkLimits(sizes: Sizes, limits: Limits): void {
  const checks: readonly (readonly [string, number, number, string])[] = [
    ['vcpus', sizes.vcpus ?? 0, limits.maxVcpus, 'WRENN_MAX_VCPUS'],
    ['memory_mb', sizes.memory_mb ?? 0, limits.maxMemoryMib, 'WRENN_MAX_MEMORY_MB'],
    ['disk_size_mb', sizes.disk_size_mb ?? 0, limits.maxDiskSizeMib, 'WRENN_MAX_DISK_SIZE_MB'],
    ['labels', Object.keys(sizes.labels).length, limits.maxLabels, 'labels per capsule'],
    ['envs', environmentBytes(sizes.envs), MAX_CAPSULE_ENVIRONMENT_BYTES, 'bytes of environment'],
  ]
  for (const [field, value, max, knob] of checks) {
    if (value > max) {
      throw new AppError('invalid_request', `${field} is ${value}; at most ${max} is allowed (${knob}).`, {
        details: { field, max },
      })
    }
  }
}

/**
 * The policy with its domains in their one form: lower case, no dot at the end.
 * @throws AppError `invalid_request`, naming the entry that is no IPv4 address, network or domain, or that nothing can open
 */
export function checkedEgress(policy: EgressPolicy): EgressPolicy {
  const checked = (list: 'allow' | 'deny') => policy[list].map((entry, index) => checkedEntry(list, entry, index))
  const lists = { allow: checked('allow'), deny: checked('deny') }
  return { internet: policy.internet, ...lists, ...(policy.learn && { learn: true }) }
}

function checkedEntry(list: 'allow' | 'deny', entry: string, index: number): string {
  const problem = problemOf(list, entry)
  if (problem === undefined) return parseDomain(entry) ?? entry
  const message = `egress.${list}: "${entry.slice(0, 100)}" ${problem}.`
  throw new AppError('invalid_request', message, { details: { field: `egress.${list}`, index, entry } })
}

function problemOf(list: 'allow' | 'deny', entry: string): string | undefined {
  const cidr = parseCidr(entry)
  if (cidr === undefined) return parseDomain(entry) === undefined ? problemOfName(entry) : undefined
  const never = list === 'allow' ? neverRangeOf(cidr) : undefined
  return never === undefined ? undefined : `cannot be opened: ${never} is never reachable from a capsule`
}

function problemOfName(entry: string): string {
  const kinds = 'is no IPv4 address, network such as 203.0.113.0/24, or domain such as example.org or *.example.org'
  if (entry.includes('*')) return `${kinds}: a wildcard stands alone before a domain of at least two labels`
  return /\P{ASCII}/u.test(entry) ? `${kinds}: give a name of another alphabet in its ASCII form, xn--…` : kinds
}
