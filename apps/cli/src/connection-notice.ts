import type { ConnectionState } from '@wrenn/sdk'
import type { Context } from './context.js'

/** Tells a person, in a line on stderr, why nothing comes from a process, and when it goes on. */
export function connectionNotice(
  { output }: Context,
  capsuleId: string,
  /** The terminal does not turn line feeds into new lines. */
  { raw = false } = {},
): (state: ConnectionState) => void {
  const words: Readonly<Record<ConnectionState, string>> = {
    lost: 'connection lost, coming back…',
    restored: 'connected again',
    paused: `the capsule is paused; this goes on after \`wrenn capsule resume ${capsuleId}\``,
    resumed: 'the capsule is awake again',
  }
  return (state) => output.note(raw ? `\r\n[${words[state]}]\r` : `[${words[state]}]`)
}
