import { posix } from 'node:path'
import { AppError } from '@wrenn/base'
import { capsuleEnvsSchema, DockerfileWordError, expandDockerfileWord } from '@wrenn/protocol'
import type { BuildStep, ProcessDefaults } from '../../store/schema.js'
import { environmentOf } from './expand.js'
import { type BuildGuest, below } from './guest.js'

const TABLE_BYTES = 4 * 1024 * 1024

/** `ENV`, `WORKDIR` and `USER` as a Dockerfile means them. @returns as whom, where and with which environment the next step runs */
export const dockerfileSteps = {
  ENV: async (guest: BuildGuest, step: BuildStep, state: ProcessDefaults): Promise<ProcessDefaults> => {
    const expanded = await expandWords(guest, step, state, step.args)
    const envs: Record<string, string> = { ...state.envs }
    for (let at = 0; at + 1 < expanded.length; at += 2) envs[step.args[at] ?? ''] = expanded[at + 1] ?? ''
    const checked = capsuleEnvsSchema.safeParse(envs)
    if (checked.success) return { ...state, envs }
    throw new AppError('build_failed', `ENV: ${checked.error.issues[0]?.message ?? 'is not valid'}.`)
  },
  WORKDIR: async (guest: BuildGuest, step: BuildStep, state: ProcessDefaults): Promise<ProcessDefaults> => {
    const [path = ''] = await expandWords(guest, step, state, step.args)
    if (path === '') throw new AppError('build_failed', 'WORKDIR: the path is empty.')
    const cwd = posix.resolve(state.cwd, path)
    await makeFolder(guest, cwd)
    return { ...state, cwd }
  },
  USER: async (guest: BuildGuest, step: BuildStep, state: ProcessDefaults): Promise<ProcessDefaults> => {
    const [user = ''] = await expandWords(guest, step, state, step.args)
    return { ...state, user: await userOf(guest, user, 'USER') }
  },
}

/**
 * Words of a step with variables in their place: those of the build before those that the step was given, then what a command would find.
 * @throws AppError `build_failed`
 */
export async function expandWords(
  guest: BuildGuest,
  { type, envs = {} }: BuildStep,
  state: ProcessDefaults,
  words: readonly string[],
): Promise<string[]> {
  const needsGuest = words.some((word) => word.includes('$'))
  const found = needsGuest ? await environmentOf(guest, state) : () => undefined
  const lookup = (name: string): string | undefined => {
    if (Object.hasOwn(state.envs, name)) return state.envs[name]
    if (Object.hasOwn(envs, name)) return envs[name]
    return found(name)
  }
  try {
    return words.map((word) => expandDockerfileWord(word, lookup))
  } catch (error) {
    if (error instanceof DockerfileWordError) throw new AppError('build_failed', `${type}: ${error.message}.`)
    throw error
  }
}

/** A folder of root's, where there is none; images may lack `mkdir`, which the platform's shell has then. @throws AppError `build_failed` */
export async function makeFolder(guest: Pick<BuildGuest, 'answer'>, path: string): Promise<void> {
  const script = '[ -d "$1" ] || mkdir -p -- "$1"'
  await guest.answer({ cmd: '/bin/sh', args: ['-c', script, 'folder', below(path)] })
}

/**
 * A user as commands are run as it: by name, or by numbers, with which a group of its own comes.
 * @param who names it, as errors say
 * @throws AppError `build_failed` where the guest has no such user or group
 */
export async function userOf(guest: Pick<BuildGuest, 'answer'>, wanted: string, who: string): Promise<string> {
  const [name = '', group] = wanted.split(':')
  if (/^\d+$/.test(name) && (group === undefined || /^\d+$/.test(group))) return wanted
  const users = await tableOf(guest, './etc/passwd')
  const user = users.find(([known]) => known === name) ?? (name === 'root' ? ['root', '', '0', '0'] : undefined)
  if (user === undefined && !/^\d+$/.test(name)) throw new AppError('build_failed', `${who}: there is no user ${name}.`)
  if (group === undefined) return name
  const groups = await tableOf(guest, './etc/group')
  const gid = /^\d+$/.test(group) ? group : groups.find(([known]) => known === group)?.[2]
  if (gid === undefined) throw new AppError('build_failed', `${who}: there is no group ${group}.`)
  return user?.[3] === gid ? name : `${user?.[2] ?? name}:${gid}`
}

async function tableOf(guest: Pick<BuildGuest, 'answer'>, path: string): Promise<string[][]> {
  // Not every userland has one.
  const script = '[ ! -e "$1" ] || cat "$1"'
  const printed = await guest.answer({ cmd: '/bin/sh', args: ['-c', script, 'table', path] }, TABLE_BYTES)
  return printed
    .toString()
    .split('\n')
    .map((line) => line.split(':'))
}
