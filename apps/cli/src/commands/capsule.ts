import { AppError } from '@wrenn/base'
import type { Capsule, CapsuleInfo, CapsuleState, ProcessInfo } from '@wrenn/sdk'
import type { Command } from 'commander'
import { findCapsule, showInfo, toJson } from '../capsule-view.js'
import { connect } from '../connection.js'
import { connectionNotice } from '../connection-notice.js'
import { type CommonOptions, type Context, contextOf, ExitCode, withJson, withProgram } from '../context.js'
import { Interrupt } from '../interrupt.js'
import { type Progress, printable, table, writeFully } from '../output.js'
import { download, upload } from '../transfer.js'
import { collectPair, showBytes, showSpan } from '../units.js'
import { runAtomic } from './atomic.js'
import { addCheckpoint, addDiff, addRollback } from './checkpoint.js'
import { addEgress } from './egress.js'
import { addFork, addHibernate, addPause, addResume, addUpdate } from './lifecycle.js'
import { addMetrics } from './metrics.js'
import {
  type CommandOptions,
  createOptions,
  type IdleOptions,
  idleOptions,
  runCommand,
  type ShapeOptions,
  withCommand,
  withIdleRules,
  withShape,
} from './run.js'
import { addShell } from './shell.js'
import { addMakeSnapshot } from './snapshot.js'
import { addUrl, type PortAccessOptions, portAccessOption, withPortAccess } from './url.js'

const createHelp = `
Without --timeout it runs until you pause or remove it. A timeout pauses it and never destroys it.

Examples:
  wrenn capsule create --memory 1g
  wrenn capsule create --timeout 10m              paused after 10 idle minutes, wakes when it is used
  wrenn capsule create --template my-snapshot     warm, with the sizes of the snapshot`

function addCreate(capsule: Command): void {
  const command = capsule.command('create').description('create a capsule and print its id')
  withPortAccess(withIdleRules(withJson(withShape(command))))
    .option('-e, --env <key=value>', 'environment variable of its commands, may be repeated', collectPair)
    .option('--user <name>', 'default user of commands')
    .option('--cwd <path>', 'default working directory')
    .addHelpText('after', createHelp)
    .action(
      async (
        options: CommonOptions & ShapeOptions & IdleOptions & PortAccessOptions & Omit<CommandOptions, 'timeout'>,
      ) => {
        const context = contextOf(options)
        const wrenn = await connect(context.config)
        using interrupt = new Interrupt()
        const progress = context.output.spinner('creating a capsule')
        try {
          const created = await wrenn.capsules.create({
            ...(await createOptions(options)),
            signal: interrupt.signal,
            ...idleOptions(options),
            ...portAccessOption(options),
            ...(options.env ? { envs: options.env } : {}),
            ...(options.user ? { user: options.user } : {}),
            ...(options.cwd ? { cwd: options.cwd } : {}),
          })
          progress.done()
          context.output.result(toJson(created.info), () => created.id)
        } finally {
          progress.done()
        }
      },
    )
}

function addList(capsule: Command): void {
  const command = capsule
    .command('ls')
    .description('list capsules')
    .option('-a, --all', 'also those that are stopped or failed')
    .option('-q, --quiet', 'ids only')
    .option('--state <state,…>', 'only these states')
  withJson(command).action(async (options: CommonOptions & { all?: boolean; quiet?: boolean; state?: string }) => {
    const context = contextOf(options)
    const wrenn = await connect(context.config)
    const states = options.all ? 'all' : (options.state?.split(',') as CapsuleState[] | undefined) // the server refuses others
    const found: CapsuleInfo[] = []
    for await (const info of wrenn.capsules.list(states ? { states } : {})) found.push(info)
    context.output.result(found.map(toJson), () => {
      if (options.quiet) return found.map((info) => info.id).join('\n')
      const rows = found.map((info) => [
        info.id,
        info.state,
        info.template,
        `${info.vcpus} × ${info.memoryMib} MiB`,
        info.engine ?? '',
        showSpan(Date.now() - info.createdAt.getTime()),
        info.name ?? '',
      ])
      return table(['ID', 'STATE', 'TEMPLATE', 'SHAPE', 'ENGINE', 'AGE', 'NAME'], rows)
    })
  })
}

function addInfo(capsule: Command): void {
  withJson(capsule.command('info <capsule>').description('show one capsule')).action(
    async (id: string, options: CommonOptions) => {
      const context = contextOf(options)
      const found = await findCapsule(context, id)
      context.output.result(toJson(found.info), () => showInfo(found.info))
    },
  )
}

const execHelp = `
Examples:
  wrenn capsule exec cl-… ls -l /
  wrenn capsule exec cl-… -d -- python3 -m http.server
  wrenn capsule exec cl-… --atomic -- ./migrate.sh      a failing migration leaves no trace

When the capsule is paused meanwhile, the command stands still with it and goes on after the resume.`

type ExecOptions = CommandOptions & { readonly background?: boolean; readonly atomic?: boolean }

function addExec(capsule: Command): void {
  const command = capsule
    .command('exec <capsule> <command...>')
    .description('run a command in a capsule, with our standard streams')
    .option('-d, --background', 'start it and leave it running; prints its tag')
    .option('--atomic', 'all or nothing: if it fails, memory, files and processes are as before it')
    .addHelpText('after', execHelp)
  withProgram(withJson(withCommand(command))).action(
    async (id: string, words: string[], options: CommonOptions & ExecOptions) => {
      const context = contextOf(options)
      if (options.background && options.atomic)
        throw new AppError('invalid_request', '--atomic needs the end of the command: leave --background out.')
      const found = await findCapsule(context, id)
      if (options.atomic) {
        using interrupt = new Interrupt()
        throw new ExitCode(await runAtomic(context, found, words, options, interrupt))
      }
      if (!options.background) {
        using interrupt = new Interrupt()
        throw new ExitCode(await runCommand(context, found, words, options, interrupt))
      }
      const [program = '', ...args] = words
      const started = await found.start([program, ...args], {
        ...(options.env ? { envs: options.env } : {}),
        ...(options.cwd ? { cwd: options.cwd } : {}),
        ...(options.user ? { user: options.user } : {}),
        ...(options.timeout ? { timeoutMs: options.timeout } : {}),
      })
      context.output.result(started, () => started.tag)
    },
  )
}

const cpHelp = `
Examples:
  wrenn capsule cp ./data.csv cl-…:/root/
  wrenn capsule cp -r ./project cl-…:/root
  wrenn capsule cp cl-…:/root/out.txt .
  echo hello | wrenn capsule cp - cl-…:/root/hello.txt
  wrenn capsule cp cl-…:/etc/os-release -

Modes are kept. With -r also modification times, hard links and symbolic links, which are copied as links; without it a link is
followed. Owners are not kept: a copy belongs to --user there, to you here. What cannot be copied is named, and the exit code is 1
when it was an error.`

const REMOTE = /^(cl-[0-9a-z]{25}):(.*)$/s
const PROGRESS_INTERVAL_MS = 100

function addCopy(capsule: Command): void {
  const command = capsule
    .command('cp <source> <target>')
    .description('copy files into or out of a capsule; - is standard input or output')
    .option('-r, --recursive', 'copy directories with everything in them')
    .option('--user <name>', 'user inside the capsule')
    .addHelpText('after', cpHelp)
  withJson(command).action(
    async (source: string, target: string, options: CommonOptions & { recursive?: boolean; user?: string }) => {
      const context = contextOf(options)
      const from = REMOTE.exec(source)
      const to = REMOTE.exec(target)
      if ((from === null) === (to === null)) {
        throw new AppError(
          'invalid_request',
          'One of source and target is in a capsule (cl-…:/path), the other is here.',
        )
      }
      const [, id = '', path = ''] = from ?? to ?? []
      const found = await findCapsule(context, id)
      using interrupt = new Interrupt()
      using tally = new Tally(context.output)
      const transfer = {
        recursive: options.recursive ?? false,
        signal: interrupt.signal,
        ...(options.user ? { user: options.user } : {}),
        onFile: tally.onFile,
        onNote: tally.onNote,
      }
      try {
        if (to) await upload(found, source, path || '.', transfer)
        else await download(found, path || '.', target, transfer)
      } catch (error) {
        if (interrupt.exitCode !== undefined) throw new ExitCode(interrupt.exitCode)
        throw error
      }
      if (target !== '-') tally.result()
    },
  )
}

/** What has been copied: shown while it grows on a terminal, and as the result. */
class Tally implements Disposable {
  readonly #output: Context['output']
  readonly #progress: Progress
  readonly #files: { path: string; size_bytes: number }[] = []
  #count = 0
  #bytes = 0
  #shownAtMs = 0

  constructor(output: Context['output']) {
    this.#output = output
    this.#progress = output.spinner('copying')
  }

  readonly onFile = (path: string, sizeBytes: number): void => {
    this.#count++
    this.#bytes += sizeBytes
    // Only the JSON document names each.
    if (this.#output.json) this.#files.push({ path, size_bytes: sizeBytes })
    const now = performance.now()
    if (now - this.#shownAtMs < PROGRESS_INTERVAL_MS) return
    this.#shownAtMs = now
    this.#progress.update(this.#text())
  }

  readonly onNote = (note: string): void => this.#output.warn(printable(note))

  result(): void {
    this.#progress.done()
    this.#output.result({ files: this.#files }, () => this.#text())
  }

  #text(): string {
    return `${this.#count} file${this.#count === 1 ? '' : 's'}, ${showBytes(this.#bytes)}`
  }

  [Symbol.dispose](): void {
    this.#progress.done()
  }
}

function addProcesses(capsule: Command): void {
  withJson(
    capsule.command('ps <capsule>').description('list processes').option('-a, --all', 'also those that ended'),
  ).action(async (id: string, options: CommonOptions & { all?: boolean }) => {
    const context = contextOf(options)
    const processes = await (await findCapsule(context, id)).processes({ includeEnded: options.all ?? false })
    context.output.result(processes, () =>
      table(
        ['PID', 'TAG', 'STATE', 'OUTPUT', 'COMMAND'],
        processes.map((one) => [
          String(one.pid),
          one.tag ?? '',
          one.running ? 'running' : 'ended',
          showBytes(one.outputBytes),
          [one.command, ...one.args].join(' ').slice(0, 100),
        ]),
      ),
    )
  })
  const kill = capsule
    .command('kill <capsule> <process>')
    .description('signal a process and its children, by pid or tag')
    .option('-s, --signal <name>', 'SIGKILL or SIGTERM', 'SIGKILL')
  withJson(kill).action(async (id: string, process: string, options: CommonOptions & { signal: string }) => {
    const context = contextOf(options)
    const signalName = options.signal === 'SIGTERM' || options.signal === 'TERM' ? 'SIGTERM' : 'SIGKILL'
    await (await findCapsule(context, id)).kill(process, { signalName })
    context.output.result({ killed: process, signal: signalName }, () => `Sent ${signalName} to ${process}.`)
  })
}

function addRemove(capsule: Command): void {
  withJson(capsule.command('rm <capsule...>').description('destroy capsules')).action(
    async (ids: string[], options: CommonOptions) => {
      const context = contextOf(options)
      const destroyed: string[] = []
      for (const id of ids) {
        const found = await findCapsule(context, id)
        await found.destroy()
        destroyed.push(id)
      }
      context.output.result({ destroyed }, () => destroyed.join('\n'))
    },
  )
}

function addLogs(capsule: Command): void {
  const command = capsule
    .command('logs <capsule> [process]')
    .description('show the output of its commands, ended ones too (or of one, by pid or tag), and why a capsule ended')
    .option('-f, --follow', 'keep showing what comes')
  command.action(async (id: string, process: string | undefined, options: { follow?: boolean }) => {
    const context = contextOf({})
    const found = await findCapsule(context, id)
    if (found.info.exit) {
      context.output.note(found.info.exit.message)
      context.output.result(found.info.exit, () => found.info.exit?.consoleTail ?? '')
      return
    }
    const all = await found.processes({ includeEnded: true })
    const wanted =
      process === undefined
        ? all.filter((one) => !one.pty)
        : all.filter((one) => one.tag === process || String(one.pid) === process)
    if (process !== undefined && wanted.length === 0)
      throw new AppError('process_not_found', `${id} has no process ${process}.`)
    for (const one of wanted) {
      if (wanted.length > 1) context.output.note(`==> ${one.tag ?? one.pid} (${one.command}) <==`)
      await showOutput(context, found, one, options.follow ?? false)
    }
  })
}

async function showOutput(context: Context, capsule: Capsule, process_: ProcessInfo, follow: boolean): Promise<void> {
  if (process_.outputBytes === 0 && !follow) return
  using interrupt = new Interrupt()
  const handle = await capsule.attach(process_.tag ?? process_.pid, {
    fromOffset: 0,
    signal: interrupt.signal,
    onConnection: connectionNotice(context, capsule.info),
  })
  try {
    for await (const event of handle) {
      if (event.type === 'exit') return
      if (event.type === 'lost') continue
      await writeFully(event.type === 'stderr' ? process.stderr : process.stdout, event.data)
      if (!follow && event.offset + event.data.length >= process_.outputBytes) return
    }
  } catch (error) {
    if (interrupt.exitCode === undefined) throw error
    throw new ExitCode(interrupt.exitCode)
  } finally {
    handle.disconnect()
  }
}

/** `wrenn capsule …`, also `wrenn c …`: all that is done with capsules. */
export function addCapsule(program: Command): void {
  const capsule = program
    .command('capsule')
    .alias('c')
    .description('create, use, pause, copy and destroy capsules')
    .enablePositionalOptions()
  addCreate(capsule)
  addList(capsule)
  addInfo(capsule)
  addMetrics(capsule)
  addExec(capsule)
  addShell(capsule)
  addUrl(capsule)
  addEgress(capsule)
  addCopy(capsule)
  addLogs(capsule)
  addProcesses(capsule)
  addPause(capsule)
  addHibernate(capsule)
  addResume(capsule)
  addUpdate(capsule)
  addFork(capsule)
  addCheckpoint(capsule)
  addRollback(capsule)
  addDiff(capsule)
  addMakeSnapshot(capsule)
  addRemove(capsule)
}
