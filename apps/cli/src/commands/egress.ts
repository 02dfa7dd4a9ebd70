import { AppError } from '@wrenn/base'
import type {
  DestinationInfo,
  EgressInfo,
  EgressPolicy,
  EgressRule,
  EgressRuleWish,
  EgressStatus,
  EgressWish,
  LearnedInfo,
  RefusalInfo,
} from '@wrenn/sdk'
import type { Command } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { environmentVariable } from '../config.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { headerRulesOf } from '../header-secrets.js'
import { facts, printable, table } from '../output.js'
import { collect } from '../units.js'

/** Of commands that say what a capsule may reach. */
export interface EgressOptions {
  readonly internet?: boolean
  readonly allow?: readonly string[]
  readonly deny?: readonly string[]
  readonly learn?: boolean
  readonly headerSecret?: readonly string[]
}

/** Read it by {@link egressOption}. */
export function withEgress(command: Command): Command {
  return command
    .option('--no-internet', 'only what --allow names')
    .option(
      '--allow <target>',
      'IPv4 address, network or domain that is allowed whatever --deny says, may be repeated',
      collect,
    )
    .option('--deny <target>', 'IPv4 address, network or domain that is denied, may be repeated', collect)
    .option('--learn', 'note what is let through, so that `wrenn capsule egress learn` can propose a policy of it')
    .option(
      '--header-secret <host=…,header=…,env=…>',
      'set a header in requests by TLS to a host, outside the capsule: from a variable (env=) or file (src=, - is stdin), after a word (scheme=Bearer); may be repeated',
      collect,
    )
}

/** The policy that was asked for; `undefined` when nothing was said. @throws AppError `invalid_request` */
export async function egressOption(options: EgressOptions): Promise<EgressWish | undefined> {
  const { internet, allow, deny, learn, headerSecret = [] } = options
  const saysNothing = internet !== false && allow === undefined && deny === undefined && learn !== true
  if (saysNothing && headerSecret.length === 0) return undefined
  const rules = await headerRulesOf(headerSecret, environmentVariable)
  const lists = { allow: [...(allow ?? [])], deny: [...(deny ?? [])] }
  return {
    internet: internet !== false,
    ...lists,
    ...(learn === true && { learn }),
    ...(rules.length > 0 && { rules }),
  }
}

const setHelp = `
The whole policy is replaced. What becomes forbidden ends its open connections; what stays allowed is never cut.
Headers that were set by --header-secret go, unless they are given again or kept by --keep-header-secrets.

Examples:
  wrenn capsule egress set cl-… --no-internet --allow 203.0.113.0/24
  wrenn capsule egress set cl-… --no-internet --allow pypi.org --allow '*.pythonhosted.org'
  wrenn capsule egress set cl-… --deny 198.51.100.7
  wrenn capsule egress set cl-…                   public addresses, as a new capsule has it
  wrenn capsule egress set cl-… --learn           the same, and what is used is noted
  wrenn capsule egress set cl-… --header-secret host=api.example.org,header=authorization,scheme=Bearer,env=TOKEN`

const learnHelp = `
Prints a policy that allows what the capsule has used since its policy says \`learn\`, and nothing else: as JSON, and as options of
\`wrenn capsule create\` and \`wrenn capsule egress set\`. With --json all that was used is printed with it.

Examples:
  wrenn capsule egress set cl-… --learn           begin; then let the capsule do its work
  wrenn capsule egress learn cl-…                 look
  wrenn capsule egress learn cl-… --apply         put it in force, which ends the learning`

/** `wrenn egress`, also `wrenn capsule egress`: what a capsule may reach. */
export function addEgress(parent: Command): void {
  const egress = parent.command('egress').description('see and change what a capsule may reach')
  withJson(
    egress.command('get <capsule>').description('print what it may reach, and what it was refused by name'),
  ).action(async (id: string, options: CommonOptions) => {
    const context = contextOf(options)
    const status = await (await findCapsule(context, id)).egress.get()
    context.output.result(statusToJson(status), () => showStatus(status))
  })
  const set = egress.command('set <capsule>').description('replace what it may reach').addHelpText('after', setHelp)
  set.option('--keep-header-secrets', 'keep the headers that are set, with their values')
  withEgress(withJson(set)).action(async (id: string, options: SetOptions) => {
    const context = contextOf(options)
    const wish = (await egressOption(options)) ?? {}
    const { egress } = await findCapsule(context, id)
    const kept = options.keepHeaderSecrets === true ? ((await egress.get()).policy.rules ?? []) : []
    const info = await egress.set({ ...wish, ...withKept(wish.rules ?? [], kept) })
    context.output.result(toJson(info), () => show(info))
    if (!info.inForce) context.output.note('Its host does not have it yet; it comes into force as soon as it can.')
  })
  const learn = egress.command('learn <capsule>').description('propose a policy of what it has used')
  learn.option('--apply', 'put the proposal in force').addHelpText('after', learnHelp)
  withJson(learn).action(async (id: string, options: CommonOptions & { readonly apply?: boolean }) => {
    const context = contextOf(options)
    const capsule = await findCapsule(context, id)
    const { policy, learned } = await capsule.egress.get()
    if (learned === undefined) throw learnsNot(id, policy)
    context.output.result(learnedToJson(learned), () => showProposal(learned))
    if (!learned.complete) {
      context.output.note('More was used than is kept, or than a policy has room for: the proposal is not complete.')
    }
    if (options.apply !== true) return
    const { inForce } = await capsule.egress.set(learned.proposal)
    context.output.note(
      inForce ? 'It is in force.' : 'Its host does not have it yet; it comes into force as soon as it can.',
    )
  })
}

type SetOptions = CommonOptions & EgressOptions & { readonly keepHeaderSecrets?: boolean }

/** Rules that are given, and those of other hosts that are kept. */
function withKept(given: EgressRuleWish[], kept: readonly EgressRule[]): Pick<EgressWish, 'rules'> {
  const hosts = new Set(given.map(({ host }) => host.toLowerCase()))
  const rules = [...given, ...kept.filter(({ host }) => !hosts.has(host))]
  return rules.length > 0 ? { rules } : {}
}

function learnsNot(id: string, { learn }: EgressPolicy): AppError {
  if (learn === true)
    return new AppError('host_unavailable', 'The capsule learns, but its host cannot say just now what.')
  return new AppError('invalid_state', `The capsule does not learn. \`wrenn egress set ${id} --learn\` lets it.`)
}

/** What the API has, by its names there. */
function learnedToJson({ destinations, complete, proposal }: LearnedInfo): object {
  const told = ({ namedBy, ...each }: DestinationInfo): object => ({ ...each, named_by: namedBy })
  return { proposal, complete, destinations: destinations.map(told) }
}

function showProposal({ proposal }: LearnedInfo): string {
  return `${JSON.stringify(proposal)}\n${flagsOf(proposal).join(' ')}`
}

/** The options that {@link egressOption} reads the same policy from; nothing in it means anything to a shell but a wildcard. */
export function flagsOf({ internet, allow, deny }: EgressPolicy): readonly string[] {
  const quoted = (target: string): string => (target.includes('*') ? `'${target}'` : target)
  return [
    ...(internet ? [] : ['--no-internet']),
    ...allow.map((target) => `--allow ${quoted(target)}`),
    ...deny.map((target) => `--deny ${quoted(target)}`),
  ]
}

function toJson({ policy, inForce }: EgressInfo): object {
  return { policy, in_force: inForce }
}

function show({ policy, inForce }: EgressInfo): string {
  return facts({
    internet: policy.internet ? 'yes' : 'no',
    allow: policy.allow.join(' '),
    deny: policy.deny.join(' '),
    learn: policy.learn === true ? 'yes' : undefined,
    sets: (policy.rules ?? []).map(({ host, headers }) => `${headers.join(', ')} for ${host}`).join('; ') || undefined,
    'in force': inForce ? 'yes' : 'not yet',
  })
}

function statusToJson({ refused, learned, ...info }: EgressStatus): object {
  const told = ({ lastAt, ...refusal }: RefusalInfo): object => ({ ...refusal, last_at: lastAt.toISOString() })
  return { ...toJson(info), refused: refused.map(told), ...(learned && { learned: learnedToJson(learned) }) }
}

function showStatus({ refused, ...info }: EgressStatus): string {
  const parts = [show(info)]
  if (refused.length > 0) parts.push(table(['REFUSED', 'WHY', 'TIMES', 'LAST'], refused.map(refusalRow)))
  const used = info.learned?.destinations ?? []
  if (used.length > 0) parts.push(table(['USED', 'ADDRESS', 'TIMES'], used.map(usedRow)))
  return parts.join('\n\n')
}

function usedRow({ protocol, name, address, port, count }: DestinationInfo): readonly string[] {
  return [`${protocol} ${printable(name ?? address)}:${port}`, printable(address), String(count)]
}

function refusalRow({ name, address, port, reason, rule, count, lastAt }: RefusalInfo): readonly string[] {
  const target = printable(`${name ?? address ?? ''}:${port}`)
  return [target, printable(rule === undefined ? reason : `${reason} (${rule})`), String(count), lastAt.toISOString()]
}
