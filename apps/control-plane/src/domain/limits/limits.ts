import { AppError, neverRangeOf, parseCidr, parseDomain } from '@wrenn/base'
import {
  type EgressRuleWish,
  type EgressWish,
  environmentBytes,
  MAX_CAPSULE_ENVIRONMENT_BYTES,
  MAX_RULE_HEADERS,
  MAX_RULES_BYTES,
} from '@wrenn/protocol'
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

/** What a connection or the filter itself says; a rule would contradict it, or make two requests of one. */
const NOT_TO_BE_SET: ReadonlySet<string> = new Set([
  ...['host', 'content-length', 'transfer-encoding', 'connection', 'keep-alive', 'proxy-connection', 'te', 'trailer'],
  ...['upgrade', 'expect', 'proxy-authenticate', 'proxy-authorization'],
])

/**
 * The policy with its domains in their one form: lower case, no dot at the end. Names of headers are in lower case, too.
 * @throws AppError `invalid_request`, naming the entry that is no IPv4 address, network or domain, or that nothing can open, or the rule
 * that cannot be; values are in no message
 */
export function checkedEgress(policy: EgressWish): EgressWish {
  const checked = (list: 'allow' | 'deny') => policy[list].map((entry, index) => checkedEntry(list, entry, index))
  const lists = { allow: checked('allow'), deny: checked('deny') }
  const rules = checkedRules(policy.rules ?? [])
  return {
    internet: policy.internet,
    ...lists,
    ...(policy.learn && { learn: true }),
    ...(rules.length > 0 && { rules }),
  }
}

function checkedRules(rules: readonly EgressRuleWish[]): EgressRuleWish[] {
  const hosts = new Set<string>()
  let bytes = 0
  const checked = rules.map(({ host: given, headers }, index) => {
    const host = parseCidr(given) === undefined ? parseDomain(given) : undefined
    const shown = given.slice(0, 100)
    if (host === undefined) throw noRule(index, `"${shown}" is no domain such as example.org or *.example.org`)
    if (hosts.has(host)) throw noRule(index, `there is another rule for ${shown}`)
    hosts.add(host)
    const entries = Array.isArray(headers)
      ? headers.map((name) => [name.toLowerCase(), ''] as const)
      : Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const)
    checkHeaders(entries, index)
    bytes += entries.reduce((sum, [name, value]) => sum + name.length + value.length, host.length)
    return { host, headers: Array.isArray(headers) ? entries.map(([name]) => name) : Object.fromEntries(entries) }
  })
  if (bytes > MAX_RULES_BYTES)
    throw noRule(0, `all together have ${bytes} bytes; at most ${MAX_RULES_BYTES} are allowed`)
  return checked
}

function checkHeaders(entries: readonly (readonly [string, string])[], index: number): void {
  if (entries.length === 0 || entries.length > MAX_RULE_HEADERS) {
    throw noRule(index, `a rule sets 1 to ${MAX_RULE_HEADERS} headers, not ${entries.length}`)
  }
  const names = entries.map(([name]) => name)
  const twice = names.find((name, at) => names.indexOf(name) !== at)
  if (twice !== undefined) throw noRule(index, `${twice} is there twice`)
  const refused = names.find((name) => NOT_TO_BE_SET.has(name))
  if (refused !== undefined) throw noRule(index, `${refused} belongs to the connection and cannot be set`)
}

function noRule(index: number, problem: string): AppError {
  return new AppError('invalid_request', `egress.rules: ${problem}.`, { details: { field: 'egress.rules', index } })
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
