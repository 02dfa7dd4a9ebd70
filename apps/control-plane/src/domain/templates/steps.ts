import { posix } from 'node:path'
import { AppError } from '@wrenn/base'
import { capsuleEnvsSchema } from '@wrenn/protocol'
import type { BuildStep, ProcessDefaults } from '../../store/schema.js'
import type { OpenedFiles } from './build-files.js'
import type { BuildLog } from './build-log.js'
import { copyFiles } from './copy.js'
import { dockerfileSteps, expandWords } from './dockerfile-steps.js'
import { expandValues } from './expand.js'
import { type BuildGuest, below, type GuestCommand } from './guest.js'
import type { SecretMask } from './secret-mask.js'
import { withMounts } from './step-mounts.js'

/** An image may lack it. */
const ID = 'command -v id >/dev/null || exec /.wrenn/bin/busybox id -u -- "$0"; exec id -u -- "$0"'
const MAX_SHOWN_LENGTH = 300
const SHELL = ['/bin/bash', '-c'] as const

/** Where a build's steps happen. */
export interface StepContext {
  readonly guest: BuildGuest
  readonly log: BuildLog
  /** Uploaded files, by their hash; the caller reads them to their end, or destroys them. @throws AppError `build_failed` when they are not there */
  readonly openFiles: (hash: string) => Promise<OpenedFiles>
  /** Steps mean what the instructions of a Dockerfile do. */
  readonly isDockerfile: boolean
  readonly secret: (id: string) => string
}

type Run = (context: StepContext, step: BuildStep, state: ProcessDefaults, label: string) => Promise<ProcessDefaults>

const runs: Readonly<Record<BuildStep['type'], Run>> = {
  RUN: async ({ guest, log, secret }, step, state, label) => {
    const {
      args: [line = '', user],
      shell = SHELL,
    } = step
    const [cmd = '', ...args] = [...shell, line]
    await withMounts(guest, step, secret, async ({ envs, mask }) => {
      const as = { ...state, user: user || state.user, envs: { ...step.envs, ...state.envs, ...envs } }
      await runLine(guest, log, { ...as, cmd, args, line: step.label ?? line, label, mask })
    })
    return state
  },
  COPY: async (context, written, state) => {
    const { guest, openFiles } = context
    const step = context.isDockerfile ? await expandTarget(guest, written, state) : written
    const files = await openFiles(step.filesHash ?? '')
    try {
      await copyFiles(guest, step, state, files)
    } finally {
      files.stream.destroy()
    }
    return state
  },
  ENV: async ({ guest }, { args }, state) => {
    const envs = { ...state.envs, ...(await expandValues(guest, state, pairsOf(args))) }
    const checked = capsuleEnvsSchema.safeParse(envs)
    if (checked.success) return { ...state, envs }
    throw new AppError('build_failed', `ENV: ${checked.error.issues[0]?.message ?? 'is not valid'}.`)
  },
  WORKDIR: async ({ guest }, { args: [path = '/'] }, state) => {
    const cwd = posix.resolve(state.cwd, path)
    const script = '[ -d "$1" ] || { mkdir -p -- "$1" && chown -- "$2:" "$1"; }'
    await guest.answer({ cmd: '/bin/sh', args: ['-c', script, 'workdir', below(cwd), state.user] })
    return { ...state, cwd }
  },
  USER: async ({ guest }, { args: [user = ''] }, state) => {
    await guest.answer({ cmd: '/bin/sh', args: ['-c', ID, user] })
    return { ...state, user }
  },
}

/**
 * Does one step.
 * @returns as whom, where and with which environment the next one runs
 * @throws AppError `build_failed` when it cannot be done; why the capsule ended, when it did
 */
export async function runStep(
  context: StepContext,
  step: BuildStep,
  state: ProcessDefaults,
  label: string,
): Promise<ProcessDefaults> {
  const { type } = step
  if (context.isDockerfile && type !== 'RUN' && type !== 'COPY') {
    return await dockerfileSteps[type](context.guest, step, state)
  }
  return await runs[type](context, step, state, label)
}

async function expandTarget(guest: BuildGuest, step: BuildStep, state: ProcessDefaults): Promise<BuildStep> {
  const [source = '', written = '', ...rest] = step.args
  const [target = ''] = await expandWords(guest, step, state, [written])
  return { ...step, args: [source, target, ...rest] }
}

/** A step as its log calls it. */
export function shown({ type, args, label }: BuildStep): string {
  if (label !== undefined) return clipped(label)
  // Values of variables may be secrets.
  const told = type === 'ENV' ? Object.keys(pairsOf(args)) : args.filter((arg) => arg !== '')
  const text = `${type} ${told.join(' ')}`
  return text.length > MAX_SHOWN_LENGTH ? `${text.slice(0, MAX_SHOWN_LENGTH)}…` : text
}

interface Line extends GuestCommand {
  /** As errors call it. */
  readonly line: string
  readonly label: string
  readonly mask: SecretMask
}

async function runLine(guest: BuildGuest, log: BuildLog, { line, label, mask, ...command }: Line): Promise<void> {
  const [stdout, stderr] = [log.stream(label, 'info', mask), log.stream(label, 'warn', mask)]
  const output = {
    stdout: (bytes: Uint8Array) => stdout.write(bytes),
    stderr: (bytes: Uint8Array) => stderr.write(bytes),
  }
  const code = await guest.run(command, output)
  await stdout.end()
  await stderr.end()
  if (code !== 0) throw new AppError('build_failed', `The command ended with exit code ${code}: ${clipped(line)}`)
}

function clipped(line: string): string {
  return line.length > MAX_SHOWN_LENGTH ? `${line.slice(0, MAX_SHOWN_LENGTH)}…` : line
}

function pairsOf(args: readonly string[]): Record<string, string> {
  const pairs: [string, string][] = []
  for (let at = 0; at + 1 < args.length; at += 2) pairs.push([args[at] ?? '', args[at + 1] ?? ''])
  return Object.fromEntries(pairs)
}
