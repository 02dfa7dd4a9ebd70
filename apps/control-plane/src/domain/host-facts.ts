import type { CapsuleExit } from '@wrenn/protocol'
import type { Capsule, Exit } from '@wrenn/protocol/host'
import type { CapsulePatch } from '../store/capsules.js'

/** What a host's report adds to a capsule's row. */
export function factsOf(capsule: Capsule): CapsulePatch {
  return {
    engine: capsule.engine || null,
    engine_version: capsule.engineVersion || null,
    kernel_version: capsule.kernelVersion || null,
    agent_version: capsule.agentVersion || null,
    path: capsule.path || null,
    timings: JSON.stringify(capsule.timings.map(({ step, ms }) => ({ step, ms }))),
    guest_address: capsule.guestAddress || null,
    observed_at: new Date(),
  }
}

export function exitOf(exit: Exit | undefined): CapsuleExit {
  if (exit === undefined) return { cause: 'unknown', message: 'The capsule ended and its host does not know why.' }
  return {
    cause: exit.cause || 'unknown',
    message: exit.message,
    ...(exit.exitCode === undefined ? {} : { exit_code: exit.exitCode }),
    ...(exit.signal === undefined ? {} : { signal: exit.signal }),
    ...(exit.consoleTail === '' ? {} : { console_tail: storable(exit.consoleTail) }),
    ...(exit.atMs === 0n ? {} : { at: new Date(Number(exit.atMs)).toISOString() }),
  }
}

/** A console may print anything; jsonb cannot hold NUL. */
function storable(text: string): string {
  return text.replaceAll('\0', '')
}
