import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { AppError } from '@wrenn/base'
import type { GuestUser } from '../identity/users.js'
import type { Tools } from './tools.js'

const MAX_MESSAGE = 1_000

/** The words to put before a command line so that it runs with the user's groups; only `setpriv` can give supplementary ones. */
export function setprivPrefix(user: GuestUser, tools: Tools): readonly string[] {
  const ids = ['--reuid', String(user.uid), '--regid', String(user.gid), '--groups', user.groups.join(',')]
  return [...tools.command('setpriv'), ...ids, '--']
}

interface UserCommand {
  readonly program: string
  readonly args: readonly string[]
  /** Options for `spawn`. */
  readonly ids: { readonly uid?: number; readonly gid?: number }
}

/** How to spawn a helper program so that it has the rights of `user`. */
export function commandAs(user: GuestUser, tools: Tools, command: readonly string[]): UserCommand {
  const prefix = user.uid !== 0 && user.groups.length > 0 ? setprivPrefix(user, tools) : []
  const [program = '', ...args] = [...prefix, ...command]
  return { program, args, ids: user.uid === 0 || prefix.length > 0 ? {} : { uid: user.uid, gid: user.gid } }
}

/**
 * Runs a helper program with the rights of `user` and `input` as its standard input.
 * @throws AppError `guest_error` with what it printed, when it fails
 */
export async function runAs(user: GuestUser, tools: Tools, command: readonly string[], input: Buffer): Promise<void> {
  const { program, args, ids } = commandAs(user, tools, command)
  const child = spawn(program, args, { env: { LC_ALL: 'C' }, cwd: '/', stdio: ['pipe', 'ignore', 'pipe'], ...ids })
  // One that ends without reading all of it says why by its status.
  child.stdin.on('error', () => {}).end(input)
  let message = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    message = (message + text).slice(0, MAX_MESSAGE)
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new AppError('guest_error', message.trim() || `${command[0]} ended with ${code}`)
}
