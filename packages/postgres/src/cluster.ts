import { spawn } from 'node:child_process'
import { chown, type FileHandle, mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { AppError, boundCommand, isErrno } from '@wrenn/base'
import type { Identity } from './access.js'

/** Where `initdb` works, and the passwd file it is given. */
const DRAFT = 'data.init'

/** The command line that starts a program as `who`, ended by the kernel (fast stop) when we die. */
export function asIdentity(who: Identity, program: string, args: readonly string[]): readonly [string, ...string[]] {
  return boundCommand(program, args, { signal: 'INT', user: who.differs ? who : undefined })
}

/**
 * `initdb` insists on a name for its user, and ours has none in the host's /etc/passwd. A private mount namespace gives it
 * one without adding a user to the host.
 */
function withPasswd(passwd: string, command: readonly string[]): readonly [string, ...string[]] {
  const script = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, 'sh', passwd, ...command]
}

async function runInitdb(bin: string, dataDir: string, who: Identity, lifeline: FileHandle): Promise<void> {
  const args = ['-D', dataDir, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C.UTF-8']
  const passwd = `${dataDir}.passwd`
  await writeFile(passwd, `postgres:x:${who.uid}:${who.gid}::/:/usr/sbin/nologin\n`, { mode: 0o644 })
  const command = asIdentity(who, join(bin, 'bin/initdb'), args)
  const [program, ...rest] = who.differs ? withPasswd(passwd, command) : command
  const child = spawn(program, rest, {
    cwd: '/',
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' },
    stdio: ['ignore', 'pipe', 'pipe', lifeline.fd],
  })
  const output: Buffer[] = []
  child.stdout?.on('data', (chunk: Buffer) => output.push(chunk))
  child.stderr?.on('data', (chunk: Buffer) => output.push(chunk))
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  }).finally(() => rm(passwd, { force: true }))
  if (code === 0) return
  const text = Buffer.concat(output).toString('utf8').trim()
  throw new AppError('engine_failure', `PostgreSQL could not make its data directory ${dataDir}: ${text.slice(-2000)}`)
}

/** Of an `initdb` that was interrupted: whoever may make one has the directory for itself. */
async function removeDrafts(dir: string): Promise<void> {
  for (const name of await readdir(dir)) {
    if (name.startsWith(DRAFT)) await rm(join(dir, name), { recursive: true, force: true })
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** Makes `<dir>/data` on first use: complete or not at all, because `initdb` works beside it and one rename puts it in place. */
export async function ensureCluster(dir: string, bin: string, who: Identity, lifeline: FileHandle): Promise<string> {
  const dataDir = join(dir, 'data')
  await removeDrafts(dir)
  if (await exists(join(dataDir, 'PG_VERSION'))) return dataDir
  const beside = join(dir, DRAFT)
  await mkdir(beside, { mode: 0o700 })
  if (who.differs) await chown(beside, who.uid, who.gid)
  await runInitdb(bin, beside, who, lifeline)
  await rename(beside, dataDir)
  await syncFolder(dirname(dataDir))
  return dataDir
}
