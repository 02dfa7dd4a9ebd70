import type { CapsuleInfo, ConnectionState } from '@wrenn/sdk'
import type { Context } from './context.js'

/** Tells a person, in a line on stderr, why nothing comes from a process, and when it goes on. */
export function connectionNotice(
  { output }: Context,
  { id, autoResume }: Pick<CapsuleInfo, 'id' | 'autoResume'>,
  /** The terminal does not turn line feeds into new lines. */
  { raw = false } = {},
): (state: ConnectionState) => void {
  const wakes = autoResume ? 'wakes when it is used, or with' : 'wakes only with'
  const words: Readonly<Record<ConnectionState, string>> = {
    lost: 'connection lost, coming back…',
    restored: 'connected again',
    paused: `the capsule is paused; it ${wakes} \`wrenn capsule resume ${id}\``,
    resumed: 'the capsule is awake again',
  }
  return (state) => output.note(raw ? `\r\n[${words[state]}]\r` : `[${words[state]}]`)
}
