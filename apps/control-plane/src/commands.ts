import { AppError, errorText } from '@wrenn/base'
import type { ControlPlaneConfig } from './config.js'
import { recoverKey } from './domain/accounts/index.js'
import { type Db, listMigrations, migrateDownTo, openDatabase } from './store/database.js'

/** By name; each gives what its answer says. */
const commands: Readonly<Record<string, (db: Db, args: readonly string[]) => Promise<object>>> = {
  'recover-key': async (db, [team]) => await recoverKey(db, team),
  migrations: async (db) => ({ migrations: await listMigrations(db) }),
  'migrate-down': async (db, [name = '']) => ({ reverted: await migrateDownTo(db, name) }),
}

/** Runs a command of the machine instead of serving; answers as JSON lines on stdout. Returns the exit code. */
export async function runCommandLine(
  command: string,
  args: readonly string[],
  { databaseUrl }: Pick<ControlPlaneConfig, 'databaseUrl'>,
): Promise<number> {
  const db = openDatabase({ url: databaseUrl, maxConnections: 2, application: 'wrenn-command-line' })
  try {
    const run = commands[command]
    if (run === undefined) throw new AppError('invalid_request', `There is no command ${command}.`)
    print({ type: 'result', ...(await run(db, args)) })
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
  return error instanceof Error && 'code' in error && ['ENOENT', 'ECONNREFUSED', 'EACCES'].includes(String(error.code))
}

function unreachable(cause: unknown): AppError {
  const message = 'The database does not answer: is the platform running, and is this its directory?'
  return new AppError('database_unavailable', message, { cause })
}

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}
