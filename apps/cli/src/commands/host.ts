import { setTimeout as delay } from 'node:timers/promises'
import { AppError } from '@wrenn/base'
import type { CapsuleMoveInfo, HostDrainInfo, HostInfo, Hosts, NewHost } from '@wrenn/sdk'
import { type Command, Option } from 'commander'
import { z } from 'zod'
import { apiUrlOf, connect } from '../connection.js'
import { type CommonOptions, contextOf, ExitCode, withDir, withJson } from '../context.js'
import { type Output, table } from '../output.js'
import { readSecret } from '../terminal/secret.js'
import { parseInteger, showSpan } from '../units.js'
import { layoutOf } from '../up/layout.js'
import { alreadyRunning, findRunning } from '../up/record.js'
import { requireRoot } from '../up/requirements.js'
import { askHostAgent } from '../up/service-command.js'

const help = `
A platform that was started with \`wrenn up --remote-host\` runs its capsules on other machines, which join it.

Examples:
  wrenn host token                                      on the platform: a token, good once and for an hour
  sudo wrenn host join https://wrenn.example:8443       on the other machine; asks for the token
  sudo wrenn up                                         there: runs the host agent
  wrenn host ls`

interface JoinOptions extends CommonOptions {
  readonly address?: string
  readonly listen?: string
  readonly ca?: string
}

/** `wrenn host`: the machines that run capsules, where those are others. */
export function addHost(program: Command): void {
  const host = program
    .command('host')
    .description('the machines that run capsules, where that is not the one of the platform')
    .addHelpText('after', help)
  addToken(host)
  addJoin(host)
  addList(host)
  addCordon(host)
  addDrain(host)
  addMove(host)
  addTag(host)
  addRemove(host)
  addRotate(host)
  addUnknown(host)
  addDestroyUnknown(host)
}

function addToken(host: Command): void {
  const command = host
    .command('token [host]')
    .description('make a token by which a machine joins; with a host, another one for that')
    .addHelpText(
      'after',
      '\nA host needs another token when it has not joined in time, has moved, has lost what it was given, or is trusted no more.\nIt keeps its id, and its capsules.\n\nExample:\n  wrenn host token --json',
    )
  withJson(command).action(async (id: string | undefined, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { hosts } = await connect(config)
    const made = id === undefined ? await hosts.create() : await hosts.renewToken(id)
    const url = config.publicUrl ?? (await apiUrlOf(config))
    output.result(newHostJson(made), () => showNew(made, url))
  })
}

function addJoin(host: Command): void {
  const command = host
    .command('join <url> [token]')
    .description('make this machine a host of the platform there; `wrenn up` then runs its host agent')
    .option('--address <name:port>', 'where the platform reaches this machine (default: its address towards it, 7443)')
    .option('--listen <address:port>', 'where the host agent listens (default: all addresses, the same port)')
    .option('--ca <file>', "authorities that the platform's certificate is of, as PEM (default: public ones)")
    .addHelpText(
      'after',
      '\nWithout a token it is asked for, or read from the standard input: one line. The key of this machine is made here and stays here.\nThe file for --ca is the one that `wrenn up --tls` says clients must trust.\n\nExample:\n  sudo wrenn host join https://wrenn.example:8443 --address 10.1.2.3:7443 < token',
    )
  withDir(withJson(command)).action(async (url: string, given: string | undefined, options: JoinOptions) => {
    const { config, output } = contextOf(options)
    requireRoot()
    const layout = layoutOf(config.dir)
    const running = await findRunning(layout)
    if (running) throw alreadyRunning(layout, running)
    const token = given ?? (await readSecret('Token: '))
    if (token === '') throw new AppError('invalid_request', 'The token is empty; the standard input gives it.')
    const { address, listen, ca } = options
    const choices = Object.entries({ address, listen, ca }).flatMap(([name, value]) =>
      value === undefined ? [] : [`--${name}=${value}`],
    )
    const args = ['join', ...choices, '--', url]
    const joined = await askHostAgent({ args, input: token, config, dir: layout.dir, schema: joinedSchema })
    const { hostId, ...where } = joined
    output.result({ host_id: hostId, ...where, dir: layout.dir }, () =>
      [
        `This machine is ${hostId} of ${joined.url}, which reaches it at ${joined.address}.`,
        `Run its host agent with \`wrenn up\`${config.dir === '/var/lib/wrenn' ? '' : ` --dir ${layout.dir}`}; it listens on ${joined.listen}.`,
      ].join('\n'),
    )
  })
}

const joinedSchema = z.object({ hostId: z.string(), address: z.string(), listen: z.string(), url: z.string() })

function addList(host: Command): void {
  const command = host.command('ls').description('list the machines that have joined or may')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const hosts = await (await connect(config)).hosts.list()
    output.result(hosts.map(toJson), () => showHosts(hosts))
  })
}

function addCordon(host: Command): void {
  const cordon = host
    .command('cordon <host>')
    .description('give a host no new capsules; those that it has stay, wake and are forked there')
  withJson(cordon).action(async (id: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    output.result(toJson(await (await connect(config)).hosts.cordon(id)), () => `${id} gets no new capsules.`)
  })
  const uncordon = host.command('uncordon <host>').description('give it new capsules again')
  withJson(uncordon).action(async (id: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    output.result(toJson(await (await connect(config)).hosts.uncordon(id)), () => `${id} gets new capsules.`)
  })
}

interface DrainOptions extends CommonOptions {
  readonly concurrency?: number
  readonly wait?: boolean
  readonly status?: boolean
  readonly stop?: boolean
}

function addDrain(host: Command): void {
  const command = host
    .command('drain <host>')
    .description('cordon a host and move all that it has off it')
    .option(
      '--concurrency <count>',
      'how many capsules are on their way at once, 32 at most (default: 4)',
      parseInteger,
    )
    .option('--wait', 'until it is empty, or all that is left has failed')
    .addOption(new Option('--status', 'begin nothing; say how far it is').conflicts('concurrency'))
    .addOption(
      new Option('--stop', 'move no more off it; it stays cordoned').conflicts(['concurrency', 'status', 'wait']),
    )
    .addHelpText(
      'after',
      '\nRunning capsules go on on other hosts, paused ones hibernate; that needs an object store. What could not be moved is tried again until the host is\nuncordoned or --stop is said. With --wait, the exit code is 1 while something is left.\n\nExample:\n  wrenn host drain host-… --wait && wrenn host rm host-…',
    )
  withJson(command).action(async (id: string, options: DrainOptions) => {
    const { config, output } = contextOf(options)
    const { hosts } = await connect(config)
    if (options.stop === true) {
      await hosts.stopDrain(id)
      output.result({ stopped: id }, () => `Nothing more is moved off ${id}, which stays cordoned.`)
      return
    }
    const { concurrency } = options
    const asked = concurrency === undefined ? {} : { concurrency }
    const first = options.status === true ? await hosts.getDrain(id) : await hosts.drain(id, asked)
    const drain = options.wait === true ? await drained(hosts, first, output) : first
    output.result(drainJson(drain), () => showDrain(drain))
    if (options.wait === true && drain.state !== 'drained') throw new ExitCode(1)
  })
}

const LOOK_AT_DRAIN_EVERY_MS = 1_000

/** How it is when nothing is left, or all that is left has failed. */
async function drained(hosts: Hosts, first: HostDrainInfo, output: Output): Promise<HostDrainInfo> {
  // In its first moments nobody has looked at what there is, and after the last capsule has gone nobody has said yet that it was the last.
  const isUnderWay = ({ state, total, failed, done }: HostDrainInfo): boolean =>
    state !== 'drained' && (failed === 0 || failed + done < total)
  const progress = output.json ? undefined : output.progress(progressOf(first))
  let drain = first
  while (isUnderWay(drain)) {
    await delay(LOOK_AT_DRAIN_EVERY_MS)
    drain = await hosts.getDrain(first.hostId)
    progress?.update(progressOf(drain))
  }
  progress?.done()
  return drain
}

function progressOf({ total, done, moving, waiting, failed }: HostDrainInfo): string {
  return `${done} of ${total} capsules are gone, ${moving} on their way, ${waiting} waiting, ${failed} failed`
}

function showDrain(drain: HostDrainInfo): string {
  const { hostId, state, capsules, templates, failed } = drain
  const left = capsules.filter(({ error }) => error !== undefined)
  return [
    state === 'drained' ? `${hostId} has no capsules left.` : `${hostId}: ${progressOf(drain)}.`,
    ...left.map(({ capsuleId, error }) => `  ${capsuleId}: ${error?.message}`),
    ...(failed > 0 ? ['What has failed is tried again.'] : []),
    ...(templates.length === 0
      ? []
      : [`On it alone, and lost with it: ${templates.map(({ name }) => name).join(', ')}.`]),
  ].join('\n')
}

function drainJson({ hostId, capsules, templates, startedAt, endedAt, ...counts }: HostDrainInfo): object {
  return {
    host_id: hostId,
    ...counts,
    capsules: capsules.map((each) => ({
      capsule_id: each.capsuleId,
      team_id: each.teamId,
      state: each.state,
      attempts: each.attempts,
      operation_id: each.operationId,
      error: each.error,
      updated_at: each.updatedAt,
    })),
    templates: templates.map(({ teamId, ...each }) => ({ ...each, team_id: teamId })),
    started_at: startedAt,
    ended_at: endedAt,
  }
}

function addMove(host: Command): void {
  const command = host
    .command('move <capsule> [host]')
    .description('move a capsule of any team to another host; without a host, to the one that has most room')
    .option('--timeout <seconds>', 'how long its end is waited for; the move goes on after that', '600')
    .addHelpText(
      'after',
      '\nOne that runs is paused, stored in the object store, and goes on on the other host. A paused one hibernates.\nWhere that fails it is as it was.\n\nExample:\n  wrenn host move cl-…',
    )
  withJson(command).action(
    async (id: string, to: string | undefined, options: CommonOptions & { readonly timeout: string }) => {
      const { config, output } = contextOf(options)
      const timeoutMs = secondsOf(options.timeout) * 1000
      const { hosts } = await connect(config)
      const move = await hosts.moveCapsule(id, { timeoutMs, ...(to !== undefined && { hostId: to }) })
      output.result(moveJson(move), () =>
        move.hostId === undefined ? `${id} is ${move.capsuleState}, on no host.` : `${id} is on ${move.hostId}.`,
      )
    },
  )
}

function secondsOf(text: string): number {
  const seconds = Number(text)
  if (!Number.isFinite(seconds) || seconds <= 0)
    throw new AppError('invalid_request', '--timeout is a number of seconds.')
  return seconds
}

function addTag(host: Command): void {
  const command = host
    .command('tag <host> [tags...]')
    .description('say by which tags creates may ask for a host, instead of those that it has')
    .option('--none', 'it has none from now on')
    .addHelpText(
      'after',
      '\nWhat is on the host stays, whatever it was asked for with.\n\nExample:\n  wrenn host tag host-… gpu eu\n  wrenn capsule create --host-tag gpu',
    )
  withJson(command).action(async (id: string, tags: string[], options: CommonOptions & { readonly none?: boolean }) => {
    if ((tags.length === 0) !== (options.none === true)) {
      throw new AppError('invalid_request', 'Name the tags that the host has from now on, or say --none.')
    }
    const { config, output } = contextOf(options)
    const tagged = await (await connect(config)).hosts.tag(id, tags)
    output.result(toJson(tagged), () => `${id} has ${tags.length === 0 ? 'no tags' : tagged.tags.join(', ')}.`)
  })
}

function addRemove(host: Command): void {
  const command = host
    .command('rm <host>')
    .description('send a host away: it is trusted no more')
    .option('--force', 'also when it has capsules or templates; they are lost')
  withJson(command).action(async (id: string, options: CommonOptions & { readonly force?: boolean }) => {
    const { config, output } = contextOf(options)
    await (await connect(config)).hosts.remove(id, { force: options.force ?? false })
    output.result({ removed: id }, () => id)
  })
}

function addRotate(host: Command): void {
  const command = host
    .command('rotate-authority')
    .description('have another authority sign for hosts; they change over within 7 days, without a break')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    await (await connect(config)).hosts.rotateAuthority()
    output.result(
      { rotated: true },
      () => 'Another authority signs from now on; both are trusted until hosts have renewed.',
    )
  })
}

function addUnknown(host: Command): void {
  const command = host
    .command('unknown')
    .description('list capsules that a host has and the database does not know')
    .addHelpText('after', '\nAs after a restore from a backup: they were made since, go on, and belong to nobody.')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { hosts } = await (await connect(config)).platform.health()
    const found = hosts.flatMap(({ id, unknownCapsules = [] }) =>
      unknownCapsules.map((capsule) => ({ host_id: id ?? null, capsule_id: capsule })),
    )
    output.result(found, () =>
      table(
        ['HOST', 'CAPSULE'],
        found.map((each) => [each.host_id ?? '', each.capsule_id]),
      ),
    )
  })
}

function addDestroyUnknown(host: Command): void {
  const command = host
    .command('destroy-unknown <capsule>')
    .description('destroy a capsule that a host has and the database does not know')
    .option('--yes', 'its memory and files are gone for good')
  withJson(command).action(async (id: string, options: CommonOptions & { readonly yes?: boolean }) => {
    const { config, output } = contextOf(options)
    if (options.yes !== true) throw new AppError('invalid_request', 'It is gone for good afterwards; say --yes.')
    await (await connect(config)).platform.destroyUnknownCapsule(id)
    output.result({ destroyed: id }, () => id)
  })
}

function showNew({ host, token }: NewHost, url: string): string {
  return [
    `${host.id} may join, once, within an hour:`,
    `  sudo wrenn host join ${url}`,
    '  sudo wrenn up',
    'The first asks for its token:',
    `  ${token}`,
  ].join('\n')
}

function showHosts(hosts: readonly HostInfo[]): string {
  const now = Date.now()
  return table(
    ['HOST', 'STATUS', 'ADDRESS', 'TAGS', 'CPUS', 'MEMORY', 'HEARD', 'CERTIFICATE'],
    hosts.map((host) => [
      host.id,
      host.schedulable ? host.status : `${host.status}, cordoned`,
      host.address ?? '-',
      host.tags.length === 0 ? '-' : host.tags.join(','),
      host.cpuCores === undefined ? '-' : String(host.cpuCores),
      host.memoryMib === undefined ? '-' : `${host.memoryMib} MiB`,
      host.lastHeartbeatAt === undefined ? '-' : `${showSpan(now - host.lastHeartbeatAt.getTime())} ago`,
      host.certificateExpiresAt === undefined ? '-' : `${showSpan(host.certificateExpiresAt.getTime() - now)} left`,
    ]),
  )
}

function newHostJson({ host, token, tokenExpiresAt }: NewHost): object {
  return { host: toJson(host), token, token_expires_at: tokenExpiresAt }
}

function moveJson(move: CapsuleMoveInfo): object {
  return {
    id: move.id,
    capsule_id: move.capsuleId,
    team_id: move.teamId,
    state: move.state,
    capsule_state: move.capsuleState,
    from_host_id: move.fromHostId,
    to_host_id: move.toHostId,
    because: move.because,
    host_id: move.hostId,
    created_at: move.createdAt,
    updated_at: move.updatedAt,
  }
}

function toJson(host: HostInfo): object {
  return {
    id: host.id,
    status: host.status,
    schedulable: host.schedulable,
    tags: host.tags,
    address: host.address,
    arch: host.arch,
    cpu_cores: host.cpuCores,
    memory_mb: host.memoryMib,
    disk_gb: host.diskGib,
    last_heartbeat_at: host.lastHeartbeatAt,
    certificate_expires_at: host.certificateExpiresAt,
    created_by: host.createdBy,
    created_at: host.createdAt,
  }
}
