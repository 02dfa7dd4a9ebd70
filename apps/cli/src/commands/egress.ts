import type { EgressInfo, EgressPolicy, EgressStatus, RefusalInfo } from '@wrenn/sdk'
import type { Command } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { facts, printable, table } from '../output.js'
import { collect } from '../units.js'

/** Of commands that say what a capsule may reach. */
export interface EgressOptions {
  readonly internet?: boolean
  readonly allow?: readonly string[]
  readonly deny?: readonly string[]
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
}

/** The policy that was asked for; `undefined` when nothing was said. */
export function egressOption({ internet, allow, deny }: EgressOptions): EgressPolicy | undefined {
  if (internet !== false && allow === undefined && deny === undefined) return undefined
  return { internet: internet !== false, allow: [...(allow ?? [])], deny: [...(deny ?? [])] }
}

const setHelp = `
The whole policy is replaced. What becomes forbidden ends its open connections; what stays allowed is never cut.

Examples:
  wrenn capsule egress set cl-… --no-internet --allow 203.0.113.0/24
  wrenn capsule egress set cl-… --no-internet --allow pypi.org --allow '*.pythonhosted.org'
  wrenn capsule egress set cl-… --deny 198.51.100.7
  wrenn capsule egress set cl-…                   public addresses, as a new capsule has it`

/** `wrenn capsule egress`: what a capsule may reach. */
export function addEgress(capsule: Command): void {
  const egress = capsule.command('egress').description('see and change what a capsule may reach')
  withJson(
    egress.command('get <capsule>').description('print what it may reach, and what it was refused by name'),
  ).action(async (id: string, options: CommonOptions) => {
    const context = contextOf(options)
    const status = await (await findCapsule(context, id)).egress.get()
    context.output.result(statusToJson(status), () => showStatus(status))
  })
  const set = egress.command('set <capsule>').description('replace what it may reach').addHelpText('after', setHelp)
  withEgress(withJson(set)).action(async (id: string, options: CommonOptions & EgressOptions) => {
    const context = contextOf(options)
    const info = await (await findCapsule(context, id)).egress.set(egressOption(options) ?? {})
    context.output.result(toJson(info), () => show(info))
    if (!info.inForce) context.output.note('Its host does not have it yet; it comes into force as soon as it can.')
  })
}

function toJson({ policy, inForce }: EgressInfo): object {
  return { policy, in_force: inForce }
}

function show({ policy, inForce }: EgressInfo): string {
  return facts({
    internet: policy.internet ? 'yes' : 'no',
    allow: policy.allow.join(' '),
    deny: policy.deny.join(' '),
    'in force': inForce ? 'yes' : 'not yet',
  })
}

function statusToJson({ refused, ...info }: EgressStatus): object {
  const told = ({ lastAt, ...refusal }: RefusalInfo): object => ({ ...refusal, last_at: lastAt.toISOString() })
  return { ...toJson(info), refused: refused.map(told) }
}

function showStatus({ refused, ...info }: EgressStatus): string {
  if (refused.length === 0) return show(info)
  return `${show(info)}\n\n${table(['REFUSED', 'WHY', 'TIMES', 'LAST'], refused.map(refusalRow))}`
}

function refusalRow({ name, address, port, reason, rule, count, lastAt }: RefusalInfo): readonly string[] {
  const target = printable(`${name ?? address ?? ''}:${port}`)
  return [target, printable(rule === undefined ? reason : `${reason} (${rule})`), String(count), lastAt.toISOString()]
}
