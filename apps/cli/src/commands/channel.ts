import { text } from 'node:stream/consumers'
import { AppError } from '@wrenn/base'
import {
  type ChannelField,
  type ChannelInfo,
  type ChannelProvider,
  channelTargets,
  type DeliveryInfo,
} from '@wrenn/sdk'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { facts, printable, table } from '../output.js'
import { readSecret } from '../terminal/secret.js'
import { collectPair, parseInteger, showSpan } from '../units.js'

const providers = Object.keys(channelTargets)
/** What a provider must be addressed with. */
const neededFields = (provider: ChannelProvider): readonly string[] =>
  fieldsOf(provider)
    .filter(({ isNeeded }) => isNeeded)
    .map(({ name }) => name)

const help = `
Examples:
  wrenn channel add ours webhook --set url=https://example.com/hook --events 'capsule.*'
  wrenn channel add chat slack --events capsule.state:error < url
  wrenn channel ls
  wrenn channel log ch-… --state dead
  wrenn channel resend ch-…`

/** `wrenn channel`. */
export function addChannel(program: Command): void {
  const channel = program
    .command('channel')
    .description("where your team's events are sent to: webhooks and chats")
    .addHelpText('after', help)
  addAdd(channel)
  addList(channel)
  addUpdate(channel)
  addTest(channel)
  addRotate(channel)
  addLog(channel)
  addResend(channel)
  addRemove(channel)
}

const fieldsHelp = `
${Object.entries(channelTargets)
  .map(([provider, { fields }]) => `  ${provider.padEnd(12)} ${fields.map(shownField).join(', ')}`)
  .join('\n')}

Fields in brackets may be left out. What else is not given with --set is asked for, or read from the standard input, a line for each
field in this order: so secrets are in no list of processes.`

interface ConfigOptions extends CommonOptions {
  readonly set?: Readonly<Record<string, string>>
}

function withFields(command: Command): Command {
  return command.option('--set <field=value>', 'what the target is addressed with; more than once', collectPair)
}

interface AddOptions extends ConfigOptions {
  readonly events: readonly string[]
  readonly test?: boolean
}

function addAdd(channel: Command): void {
  const command = channel
    .command('add <name> <provider>')
    .description('make a channel; of a webhook the secret is printed, once')
    .option('--events <events>', 'what it is told of, separated by commas', parseEvents, ['*'])
    .option('--no-test', 'do not send a message before it is saved')
    .addHelpText('after', fieldsHelp)
  withJson(withFields(command)).action(async (name: string, given: string, options: AddOptions) => {
    const { config, output } = contextOf(options)
    const provider = needProvider(given)
    const fields = await readFields(provider, options.set)
    const { channels } = await connect(config)
    if (options.test !== false) await channels.test(provider, fields)
    const made = await channels.create(name, provider, fields, { events: options.events })
    const { secret } = made
    if (secret !== undefined) output.note('This is the only time that the secret is shown.')
    const json = { ...toJson(made), ...(secret === undefined ? {} : { secret }) }
    output.result(json, () => facts({ id: made.id, target: made.target, secret }))
  })
}

function addList(channel: Command): void {
  const command = channel.command('ls').description('list channels, and how they do')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const all = await (await connect(config)).channels.list()
    output.result(all.map(toJson), () => showChannels(all, new Date()))
  })
}

interface UpdateOptions extends ConfigOptions {
  readonly name?: string
  readonly events?: readonly string[]
  readonly on?: true
  readonly off?: true
}

function addUpdate(channel: Command): void {
  const command = channel
    .command('update <channel>')
    .description('give it another name, other events or another target, or switch it on or off')
    .option('--name <name>')
    .option('--events <events>', 'separated by commas', parseEvents)
    .addOption(new Option('--on', 'what waits goes on').conflicts('off'))
    .addOption(new Option('--off', 'it is told nothing'))
    .addHelpText('after', '\nWith --set all of what it is addressed with is replaced; a webhook keeps its secret.')
  withJson(withFields(command)).action(async (id: string, options: UpdateOptions) => {
    const { config, output } = contextOf(options)
    const { name, events, on, off, set } = options
    const { channels } = await connect(config)
    if (set !== undefined) await channels.replaceConfig(id, set)
    const isChange = name !== undefined || events !== undefined || on || off
    if (!isChange && set === undefined) throw new AppError('invalid_request', 'Say what changes: see --help.')
    const change = { ...(name && { name }), ...(events && { events }), ...(on || off ? { enabled: on === true } : {}) }
    const changed = isChange ? await channels.update(id, change) : await channels.get(id)
    output.result(toJson(changed), () => showChannels([changed], new Date()))
  })
}

function addTest(channel: Command): void {
  const command = channel.command('test <channel>').description('send a message through it')
  withJson(command).action(async (id: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { durationMs } = await (await connect(config)).channels.testSaved(id)
    output.result({ status: 'ok', duration_ms: durationMs }, () => `It was taken after ${durationMs} ms.`)
  })
}

function addRotate(channel: Command): void {
  const command = channel
    .command('rotate <channel>')
    .description('make another secret for a webhook and print it; for a day requests are signed with both')
  withJson(command).action(async (id: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { secret, previousUntil } = await (await connect(config)).channels.rotateSecret(id)
    output.note(`This is the only time that it is shown. The one before is good until ${previousUntil.toISOString()}.`)
    output.result({ secret, previous_until: previousUntil }, () => secret)
  })
}

interface LogOptions extends CommonOptions {
  readonly state?: 'pending' | 'delivered' | 'dead'
  readonly limit: number
}

function addLog(channel: Command): void {
  const command = channel
    .command('log <channel>')
    .description('what became of each event, newest first')
    .addOption(new Option('--state <state>', 'only these').choices(['pending', 'delivered', 'dead']))
    .option('--limit <n>', 'at most so many', parseInteger, 50)
    .addHelpText('after', '\nRequest and answer of each are in --json.')
  withJson(command).action(async (id: string, { state, limit, ...options }: LogOptions) => {
    const { config, output } = contextOf(options)
    const { channels } = await connect(config)
    const found: DeliveryInfo[] = []
    for await (const each of channels.deliveries(id, state === undefined ? {} : { state })) {
      if (found.length >= limit) break
      found.push(each)
    }
    output.result(found.map(deliveryJson), () => showLog(found))
  })
}

function addResend(channel: Command): void {
  const command = channel
    .command('resend <channel> [delivery...]')
    .description('send again what was given up: all, or these of the log')
  withJson(command).action(async (id: string, deliveries: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { channels } = await connect(config)
    for (const each of deliveries) await channels.resend(id, each)
    const resent = deliveries.length > 0 ? deliveries.length : await channels.resendDead(id)
    output.result({ resent }, () => `${resent} wait to be sent again.`)
  })
}

function addRemove(channel: Command): void {
  const command = channel
    .command('rm <channel...>')
    .description('delete channels, with what they were still to send and their logs')
  withJson(command).action(async (ids: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { channels } = await connect(config)
    for (const id of ids) await channels.delete(id)
    output.result({ deleted: ids }, () => ids.join('\n'))
  })
}

function fieldsOf(provider: ChannelProvider): readonly ChannelField[] {
  return channelTargets[provider].fields
}

function shownField({ name, isNeeded }: ChannelField): string {
  return isNeeded ? name : `[${name}]`
}

function needProvider(word: string): ChannelProvider {
  if (isProvider(word)) return word
  throw new AppError('invalid_request', `There is no provider ${word}; they are ${providers.join(', ')}.`)
}

function isProvider(word: string): word is ChannelProvider {
  return providers.includes(word)
}

async function readFields(
  provider: ChannelProvider,
  given: Readonly<Record<string, string>> = {},
): Promise<Record<string, string>> {
  const missing = neededFields(provider).filter((field) => given[field] === undefined)
  const fields = { ...given }
  if (process.stdin.isTTY === true) {
    for (const field of missing) fields[field] = await readSecret(`${field}: `)
    return fields
  }
  const lines = missing.length === 0 ? [] : (await text(process.stdin)).split('\n').map((line) => line.trim())
  for (const [at, field] of missing.entries()) {
    const line = lines[at] ?? ''
    if (line === '')
      throw new AppError('invalid_request', `${provider} needs ${field}: give --set ${field}=…, or a line of input.`)
    fields[field] = line
  }
  return fields
}

function parseEvents(words: string): string[] {
  const events = words.split(',').filter((word) => word !== '')
  if (events.length === 0)
    throw new InvalidArgumentError("Give events such as capsule.created, capsule.state:paused, 'capsule.*'.")
  return events
}

function toJson(channel: ChannelInfo) {
  const { isEnabled: enabled, retryAt, createdAt, updatedAt, ...same } = channel
  return { ...same, enabled, retry_at: retryAt, created_at: createdAt, updated_at: updatedAt }
}

function deliveryJson({ resourceId, endedAt, answer, ...same }: DeliveryInfo) {
  const { durationMs, ...said } = answer ?? {}
  return {
    ...same,
    resource_id: resourceId,
    ended_at: endedAt,
    ...(answer === undefined ? {} : { answer: { ...said, duration_ms: durationMs } }),
  }
}

function showChannels(all: readonly ChannelInfo[], now: Date): string {
  const rows = all.map((channel) => [
    channel.id,
    printable(channel.name),
    channel.provider,
    printable(channel.target),
    channel.events.join(','),
    stateOf(channel, now),
    String(channel.waiting),
    printable(channel.problem ?? ''),
  ])
  return table(['ID', 'NAME', 'PROVIDER', 'TARGET', 'EVENTS', 'STATE', 'WAITING', 'PROBLEM'], rows)
}

function stateOf({ isEnabled, retryAt }: ChannelInfo, now: Date): string {
  if (!isEnabled) return 'off'
  return retryAt === undefined ? 'on' : `again in ${showSpan(retryAt.getTime() - now.getTime())}`
}

function showLog(all: readonly DeliveryInfo[]): string {
  const rows = all.map(({ id, at, event, resourceId, state, attempts, answer, reason }) => [
    ...[id, at.toISOString(), event, resourceId, state, String(attempts)],
    ...[answer === undefined ? '-' : String(answer.status), printable(reason ?? '')],
  ])
  return table(['ID', 'TIME', 'EVENT', 'WHAT', 'STATE', 'TRIES', 'ANSWER', ''], rows)
}
