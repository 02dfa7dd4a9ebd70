import type { ProcessInfo, SignalName } from '@wrenn/protocol'
import { type ProcessInfo as GuestProcess, Signal } from '@wrenn/protocol/guest'

/** A process of the guest as the API shows it; unset fields of protobuf become absent ones. */
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

/** Both lists have the same names; the type checker proves it. */
export function toSignal(name: SignalName): Signal {
  return Signal[name]
}
