import { execFile, spawn } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

/** Another state of the sources, built: a work tree of its own, which `Symbol.asyncDispose` removes. */
export interface Build extends AsyncDisposable {
  /** Its command line. */
  readonly cli: string
  /** Short hash and subject of its commit. */
  readonly title: string
}

/** @throws Error when git does not know the ref, or it does not build */
export async function buildRef(ref: string, folder: string, log: (text: string) => void): Promise<Build> {
  const title = await describeCommit(ref)
  await git('worktree', 'add', '--detach', '--force', folder, ref)
  const remove = async () => void (await git('worktree', 'remove', '--force', folder))
  try {
    for (const [command, ...args] of [
      ['npm', 'ci', '--no-audit', '--no-fund'],
      ['node', 'scripts/build.mjs'],
    ]) {
      log(`› ${title}: ${[command, ...args].join(' ')}`)
      await run(command ?? '', args, folder)
    }
  } catch (error) {
    await remove()
    throw error
  }
  return { cli: join(folder, 'apps/cli/bin/wrenn.mjs'), title, [Symbol.asyncDispose]: remove }
}

/** Short hash and subject. */
export async function describeCommit(ref: string): Promise<string> {
  return (await git('log', '-1', '--format=%h %s', ref)).trim()
}

/** The same of the checkout, and whether there is more in it than was committed. */
export async function describeCheckout(): Promise<string> {
  const changed = (await git('status', '--porcelain', '--untracked-files=no')) !== ''
  return `${await describeCommit('HEAD')}${changed ? ' (and what is not committed)' : ''}`
}

async function git(...args: string[]): Promise<string> {
  return (await promisify(execFile)('git', ['-C', ROOT, ...args])).stdout
}

async function run(command: string, args: readonly string[], cwd: string): Promise<void> {
  const child = spawn(command, args, { cwd, stdio: ['ignore', 2, 2] })
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', resolve)
  })
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} in ${cwd} ended with ${String(code)}.`)
}
