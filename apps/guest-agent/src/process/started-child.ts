import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'

/** How a process ended: by itself with `code`, by `signal`, or, with neither, in a way that nobody saw. */
export interface ProcessEnd {
  readonly code: number | null
  readonly signal: number | null
}

export const KILLED: ProcessEnd = { code: null, signal: constants.signals.SIGKILL }

/** A process of ours that runs or has ended, whoever made it. */
export interface StartedChild {
  readonly pid: number
  readonly ended: Promise<ProcessEnd>
}

/** A child of Node.js itself. */
export function childOfNode(child: ChildProcess & { readonly pid: number }): StartedChild {
  return {
    pid: child.pid,
    ended: new Promise((resolve) =>
      child.once('exit', (code, signal) =>
        resolve({ code, signal: signal === null ? null : constants.signals[signal] }),
      ),
    ),
  }
}
