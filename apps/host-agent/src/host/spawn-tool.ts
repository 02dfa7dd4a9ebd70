import { type ChildProcessByStdio, type SpawnOptions, spawn } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { inheritedLifeline } from '@wrenn/base'

type ToolOptions = Omit<SpawnOptions, 'stdio' | 'detached'>

/**
 * Starts a tool of the host. It keeps our lifeline open: one that outlives us, killed while it formats, mounts or builds, is ended
 * by the next start before that does the same.
 */
export function spawnTool(
  command: string,
  args: readonly string[],
  options: ToolOptions & { readonly stdin: 'pipe' },
): ChildProcessByStdio<Writable, Readable, Readable>
export function spawnTool(
  command: string,
  args: readonly string[],
  options: ToolOptions & { readonly stdin: 'ignore' },
): ChildProcessByStdio<null, Readable, Readable>
export function spawnTool(
  command: string,
  args: readonly string[],
  { stdin, ...options }: ToolOptions & { readonly stdin: 'pipe' | 'ignore' },
) {
  return spawn(command, [...args], { ...options, stdio: [stdin, 'pipe', 'pipe', ...inheritedLifeline()] })
}
