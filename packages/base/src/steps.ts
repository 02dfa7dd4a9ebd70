import { readFileSync, rmSync } from 'node:fs'
import { AppError, isErrno } from './errors.js'

/** Called where an operation has just done something that counts, with a name such as `pause:saved`. */
export type ReachStep = (step: string) => void

/** For everyone but a test of crashes. */
export const noSteps: ReachStep = () => {}

/**
 * Lets a test break a process at an exact step. The file at `path` holds `<step> <action>`: `kill` ends this process as
 * `kill -9` would, `fail` makes the step throw, `stop` stops this process until somebody sends it SIGCONT, so that a test can
 * act at that very moment. It works once: the file is removed before the action.
 */
export function stepsFromFile(path: string): ReachStep {
  return (step) => {
    const [wanted, action] = read(path)
    if (wanted !== step) return
    rmSync(path, { force: true })
    if (action === 'stop') {
      process.kill(process.pid, 'SIGSTOP')
      return
    }
    if (action === 'kill') process.kill(process.pid, 'SIGKILL')
    // SIGKILL is delivered before the next instruction of this thread could matter; anything else is an asked-for failure.
    throw new AppError('internal', `The step ${step} was made to fail.`)
  }
}

function read(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').trim().split(/\s+/)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
