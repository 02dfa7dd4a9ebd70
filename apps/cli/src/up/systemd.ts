import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { AppError, errorText, isErrno, writeFileAtomic } from '@wrenn/base'
import { findRoot } from './layout.js'

/** Where the machine's owner keeps units; systemd.unit(5). */
export const UNITS_DIR = '/etc/systemd/system'

/** What a unit is made for. */
export interface UnitSettings {
  /** Without `.service`. */
  readonly name: string
  /** The platform's directory. */
  readonly dir: string
  /** Program and arguments, the program by its absolute path. */
  readonly command: readonly string[]
}

/** The unit's text, from `deploy/systemd/wrenn.service`. */
export async function renderUnit({ name, dir, command }: UnitSettings): Promise<string> {
  const values: Readonly<Record<string, string>> = {
    '@NAME@': name,
    '@DIR@': quote(dir),
    '@COMMAND@': command.map(quote).join(' '),
  }
  const template = await readFile(join(findRoot(), 'deploy/systemd/wrenn.service'), 'utf8')
  return template.replace(/@[A-Z]+@/g, (key) => values[key] ?? key)
}

/** One word of a unit file, which has specifiers, variables and escapes; systemd.service(5), "Command lines". */
function quote(word: string): string {
  const plain = word.replaceAll('%', '%%').replaceAll('$', '$$$$')
  return /^[\w@%+=:,./$-]+$/.test(plain) ? plain : `"${plain.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
}

/**
 * Writes the unit and has it started at each boot, not now.
 * @returns the unit's path
 * @throws AppError `invalid_config` on a machine without systemd
 */
export async function installUnit(settings: UnitSettings): Promise<string> {
  const path = unitPath(settings.name)
  await requireSystemd()
  await writeFileAtomic(path, await renderUnit(settings), 0o644)
  await systemctl('daemon-reload')
  await systemctl('enable', '--quiet', `${settings.name}.service`)
  return path
}

/** Stops the platform, whose capsules run on, and forgets the unit. @returns false when there is none */
export async function uninstallUnit(name: string): Promise<boolean> {
  const path = unitPath(name)
  try {
    await readFile(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
  await systemctl('disable', '--quiet', '--now', `${name}.service`)
  await rm(path)
  await systemctl('daemon-reload')
  return true
}

/**
 * Says to a service manager that waits for it that the platform is ready; sd_notify(3).
 * @returns why it could not be told, which is no reason to end what runs
 */
export async function notifyReady(notifySocket: string | undefined, status: string): Promise<string | undefined> {
  if (notifySocket === undefined) return undefined
  // It speaks for us, and we live on: nobody needs to wait until the message was taken.
  const args = ['--ready', '--no-block', `--status=${status}`]
  try {
    await run('systemd-notify', args, { NOTIFY_SOCKET: notifySocket })
    return undefined
  } catch (error) {
    return errorText(error)
  }
}

function unitPath(name: string): string {
  return join(UNITS_DIR, `${name}.service`)
}

async function requireSystemd(): Promise<void> {
  try {
    await readFile('/proc/1/comm', 'utf8').then((name) => {
      if (name.trim() !== 'systemd') throw new AppError('invalid_config', notSystemd(name.trim()))
    })
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    throw new AppError('invalid_config', notSystemd('unknown'))
  }
}

function notSystemd(init: string): string {
  return `This machine's service manager is not systemd but ${init}: start \`wrenn up\` from it.`
}

async function systemctl(...args: readonly string[]): Promise<void> {
  await run('systemctl', args)
}

async function run(tool: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<void> {
  const child = spawn(tool, args, {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.on('data', (text: Buffer) => {
    said += text.toString()
  })
  const [code] = await once(child, 'close')
  if (code === 0) return
  throw new AppError('invalid_config', `${tool} ${args.join(' ')} failed: ${said.trim() || `status ${code}`}`)
}
