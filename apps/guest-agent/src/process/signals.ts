import { constants } from 'node:os'

/** Signal names as clients of this wire expect them in `status`: the texts of Go's `syscall.Signal`. */
const signalTexts: Readonly<Record<string, string>> = {
  SIGHUP: 'hangup',
  SIGINT: 'interrupt',
  SIGQUIT: 'quit',
  SIGILL: 'illegal instruction',
  SIGTRAP: 'trace/breakpoint trap',
  SIGABRT: 'aborted',
  SIGBUS: 'bus error',
  SIGFPE: 'floating point exception',
  SIGKILL: 'killed',
  SIGUSR1: 'user defined signal 1',
  SIGSEGV: 'segmentation fault',
  SIGUSR2: 'user defined signal 2',
  SIGPIPE: 'broken pipe',
  SIGALRM: 'alarm clock',
  SIGTERM: 'terminated',
  SIGXCPU: 'CPU time limit exceeded',
  SIGXFSZ: 'file size limit exceeded',
  SIGSYS: 'bad system call',
}

const textOf = new Map(
  Object.entries(constants.signals).flatMap(([name, number]) => {
    const text = signalTexts[name]
    return text === undefined ? [] : [[number, text] as const]
  }),
)

/** The text of a signal in an end event's `status`; `signal 34` for one without a text. */
export function signalText(number: number): string {
  return textOf.get(number) ?? `signal ${number}`
}

/** The kernel's number on this architecture. */
export function signalNumber(name: NodeJS.Signals): number {
  return constants.signals[name]
}
