import { AppError } from '@wrenn/base'
import type { CapsuleInfo, Timing } from '@wrenn/sdk'
import { type Command, Option } from 'commander'
import { findCapsule, showInfo, toJson } from '../capsule-view.js'
import { type CommonOptions, type Context, contextOf, withJson } from '../context.js'
import { savedWords } from '../lifecycle-words.js'
import { collectPair, parseInteger, showMs } from '../units.js'
import { type WaitOptions, waiting, withWait } from '../waiting.js'
import { type IdleOptions, idleOptions, withIdleRules } from './run.js'
import { type PortAccessOptions, portAccessOption, withPortAccess } from './url.js'

type LifecycleCommandOptions = CommonOptions & WaitOptions

const pauseHelp = `
Memory, processes and files stay exactly as they are. Open streams and terminals wait and go on after the resume.

Examples:
  wrenn capsule pause cl-…
  wrenn capsule pause cl-… --json | jq .lifecycle_timings`

/** `wrenn capsule pause`: waits until the state is saved, and says whether a power loss would cost it. */
export function addPause(capsule: Command): void {
  const command = capsule
    .command('pause <capsule>')
    .description('save a capsule as it is and give its machine back')
    .addHelpText('after', pauseHelp)
  withWait(withJson(command)).action(async (id: string, options: LifecycleCommandOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const startedAt = performance.now()
    const info = await waiting(context, 'pausing', options, (wait) => found.pause(wait))
    showMoved(context, info, `Paused in ${showMs(performance.now() - startedAt)}`)
    if (info.state === 'paused' && savedWords(info)) context.output.note(`Its saved state is ${savedWords(info)}.`)
  })
}

const hibernateHelp = `
Its state goes into the object store, and its host keeps nothing of it; it costs no room there, and goes on on any host. A running
one is paused first. One with checkpoints is refused: they stay on their host.

Examples:
  wrenn capsule hibernate cl-…
  wrenn capsule hibernate cl-… --wait 30m`

/** `wrenn capsule hibernate`: waits until the state is in the object store. */
export function addHibernate(capsule: Command): void {
  const command = capsule
    .command('hibernate <capsule>')
    .description('store a capsule away from its host, which keeps nothing of it')
    .addHelpText('after', hibernateHelp)
  withWait(withJson(command)).action(async (id: string, options: LifecycleCommandOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const startedAt = performance.now()
    const info = await waiting(context, 'storing', options, (wait) => found.hibernate(wait))
    const { output } = context
    output.result(toJson(info), () => `Hibernated in ${showMs(performance.now() - startedAt)}.`)
  })
}

const resumeHelp = `
With --from disk it starts from its files: memory, processes and open terminals are gone. That is the way out when its memory
cannot be loaded any more (state_not_loadable), and brings back a capsule that ended without a saved state. Keep the memory
with \`wrenn capsule checkpoint create\` first if it may be wanted later.

Examples:
  wrenn capsule resume cl-…
  wrenn capsule resume cl-… --from disk`

export interface FromOptions {
  readonly from?: 'memory' | 'disk'
}

/** From what a capsule starts. */
export function withFrom(command: Command): Command {
  return command.addOption(
    new Option('--from <source>', 'its memory, or its files alone').choices(['memory', 'disk']).default('memory'),
  )
}

export function fromOf({ from }: FromOptions): FromOptions {
  return from === undefined ? {} : { from }
}

/** `wrenn capsule resume`: waits until the capsule runs. */
export function addResume(capsule: Command): void {
  const command = capsule
    .command('resume <capsule>')
    .description('let a paused or hibernated capsule run on where it was')
    .addHelpText('after', resumeHelp)
  withFrom(withWait(withJson(command))).action(async (id: string, options: LifecycleCommandOptions & FromOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const startedAt = performance.now()
    const info = await waiting(context, 'resuming', options, (wait) => found.resume({ ...wait, ...fromOf(options) }))
    showMoved(context, info, `Runs again after ${showMs(performance.now() - startedAt)}`)
  })
}

/** What a capsule became: the sentence, the steps it took, and what its owner should know. */
export function showMoved({ output }: Context, info: CapsuleInfo, sentence: string): void {
  const steps = showSteps(info.lifecycleTimings)
  output.result(toJson(info), () => `${sentence}${steps}.`)
  if (info.notice) output.note(info.notice)
}

function showSteps(timings: readonly Timing[] | undefined): string {
  if (!timings?.length) return ''
  return ` (${timings.map(({ step, ms }) => `${step} ${showMs(ms)}`).join(', ')})`
}

const updateHelp = `
Examples:
  wrenn capsule update cl-… --timeout 30m
  wrenn capsule update cl-… --name worker --label stage=test
  wrenn capsule update cl-… --no-auto-resume`

type UpdateCommandOptions = CommonOptions &
  IdleOptions &
  PortAccessOptions & {
    readonly name?: string | false
    readonly label?: Readonly<Record<string, string>> | false
  }

/** `wrenn capsule update`: what is not named stays; `--no-name` and `--no-label` take away. */
export function addUpdate(capsule: Command): void {
  const command = capsule
    .command('update <capsule>')
    .description('change the name, the labels, the idle rules or the ports of a capsule')
    .option('--name <name>', 'a name for people')
    .option('--no-name', 'take the name away')
    .option('--label <key=value>', 'label, may be repeated; these replace all labels', collectPair)
    .option('--no-label', 'take all labels away')
    .addHelpText('after', updateHelp)
  withPortAccess(withIdleRules(withJson(command))).action(async (id: string, options: UpdateCommandOptions) => {
    const context = contextOf(options)
    const { name, label } = options
    const changes = {
      ...idleOptions(options),
      ...portAccessOption(options),
      ...(name === undefined ? {} : { name: name === false ? null : name }),
      ...(label === undefined ? {} : { labels: label === false ? {} : label }),
    }
    if (Object.keys(changes).length === 0)
      throw new AppError(
        'invalid_request',
        'Give what to change: --name, --label, --timeout, --auto-resume or --ports.',
      )
    const found = await findCapsule(context, id)
    const info = await found.update(changes)
    context.output.result(toJson(info), () => showInfo(info))
  })
}

const forkHelp = `
The copies have memory, processes and files of the moment of the fork; the capsule goes on after milliseconds. With --checkpoint
they have those of a checkpoint, and the capsule does not notice.

Examples:
  wrenn capsule fork cl-…
  wrenn capsule fork cl-… --count 10 --name try -e SEED=7
  wrenn capsule fork cl-… --checkpoint before-upgrade`

type ForkCommandOptions = LifecycleCommandOptions & {
  readonly count?: number
  readonly name?: string
  readonly label?: Readonly<Record<string, string>>
  readonly env?: Readonly<Record<string, string>>
  readonly checkpoint?: string
}

/** `wrenn capsule fork`: prints the ids of the copies, one a line, for scripts. */
export function addFork(capsule: Command): void {
  const command = capsule
    .command('fork <capsule>')
    .description('make running copies of a capsule and print their ids')
    .option('--count <n>', 'how many (default: 1)', parseInteger)
    .option('--name <name>', 'name of the copies; with several, -1, -2, … is added')
    .option('--label <key=value>', 'label, may be repeated (default: those of the source)', collectPair)
    .option('-e, --env <key=value>', 'added to the environment, may be repeated', collectPair)
    .option('--checkpoint <checkpoint>', 'as it was there, by name or id (default: as it is)')
    .addHelpText('after', forkHelp)
  withWait(withJson(command)).action(async (id: string, options: ForkCommandOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const { count, name, label, env, checkpoint } = options
    const forks = await waiting(context, 'forking', options, (wait) =>
      found.fork({
        ...wait,
        ...(count === undefined ? {} : { count }),
        ...(name === undefined ? {} : { name }),
        ...(label === undefined ? {} : { labels: label }),
        ...(env === undefined ? {} : { envs: env }),
        ...(checkpoint === undefined ? {} : { checkpoint }),
      }),
    )
    const json = {
      capsules: forks.map((copy) => toJson(copy.info)),
      pause_window_ms: forks.pauseWindowMs,
      timings: forks.timings,
    }
    context.output.result(json, () => forks.map((copy) => copy.id).join('\n'))
    const cost =
      checkpoint === undefined
        ? `The source stood still for ${showMs(forks.pauseWindowMs)}`
        : `Forked from ${checkpoint}`
    context.output.note(`${cost}${showSteps(forks.timings)}.`)
  })
}
