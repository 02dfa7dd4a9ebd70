import { AppError, errorText } from '@wrenn/base'
import { type OnProgress, runBackup, runRestore, runVerify } from './backup/index.js'
import type { ControlPlaneConfig } from './config.js'
import { recoverKey } from './domain/accounts/index.js'
import { type Db, listMigrations, migrateDownTo, openDatabase } from './store/database.js'

const PROGRESS_EVERY_MS = 100

/** By name; each gives what its answer says. */
const commands: Readonly<Record<string, (db: Db, args: readonly string[]) => Promise<object>>> = {
  'recover-key': async (db, [team]) => await recoverKey(db, team),
  migrations: async (db) => ({ migrations: await listMigrations(db) }),
  'migrate-down': async (db, [name = '']) => ({ reverted: await migrateDownTo(db, name) }),
}

type Settings = Pick<ControlPlaneConfig, 'databaseUrl' | 'encryptionKeys' | 'encryptionKeyFile'>

/** Those that take their time and have connections of their own. */
const longCommands: Readonly<
  Record<string, (settings: Settings, args: readonly string[], onProgress: OnProgress) => Promise<object>>
> = { backup: runBackup, 'verify-backup': runVerify, restore: runRestore }

/** Runs a command of the machine instead of serving; answers as JSON lines on stdout. Returns the exit code. */
export async function runCommandLine(command: string, args: readonly string[], settings: Settings): Promise<number> {
  const db = openDatabase({ url: settings.databaseUrl, maxConnections: 2, application: 'wrenn-command-line' })
  try {
    const run = commands[command]
    const long = longCommands[command]
    if (long !== undefined) print({ type: 'result', ...(await long(settings, args, printProgress())) })
    else if (run !== undefined) print({ type: 'result', ...(await run(db, args)) })
    else throw new AppError('invalid_request', `There is no command ${command}.`)
    return 0
  } catch (error) {
    const { code, message } = isUnreachable(error) ? unreachable(error) : AppError.from(error)
    print({ type: 'error', code, message: code === 'internal' ? errorText(error) : message })
    return 1
  } finally {
    await db.destroy()
  }
}

function isUnreachable(error: unknown): boolean {
  if (!(error instanceof Error && 'code' in error)) return false
  // Files that are not there or not ours have the same codes.
  const isOfFile = 'syscall' in error && error.syscall !== 'connect'
  return !isOfFile && ['ENOENT', 'ECONNREFUSED', 'EACCES'].includes(String(error.code))
}

function unreachable(cause: unknown): AppError {
  const message = 'The database does not answer: is the platform running, and is this its directory?'
  return new AppError('database_unavailable', message, { cause })
}

/** As often as people can follow. */
function printProgress(): OnProgress {
  let [lastStep, lastAt] = ['', Number.NEGATIVE_INFINITY]
  return (step, detail, fraction) => {
    if (step === lastStep && performance.now() - lastAt < PROGRESS_EVERY_MS) return
    lastStep = step
    lastAt = performance.now()
    print({ type: 'progress', step, detail, fraction })
  }
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
