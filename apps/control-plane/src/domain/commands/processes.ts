import type { ProcessInfo, SignalName } from '@wrenn/protocol'
import { type ProcessInfo as GuestProcess, Signal } from '@wrenn/protocol/guest'

export function toProcessInfo(process: GuestProcess): ProcessInfo {
  const { config, tag } = process
  return {
    pid: process.pid,
    cmd: config?.cmd ?? '',
    args: config?.args ?? [],
    pty: process.pty,
    running: process.running,
    output_offset: Number(process.outputOffset),
    ...(tag === undefined ? {} : { tag }),
    ...(config?.cwd === undefined ? {} : { cwd: config.cwd }),
    ...(process.startedAtMs === 0n ? {} : { started_at: new Date(Number(process.startedAtMs)).toISOString() }),
  }
}

export function toSignal(name: SignalName): Signal {
  return Signal[name]
}
