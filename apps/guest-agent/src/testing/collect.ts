import type { ProcessEvent } from '@wrenn/protocol/guest'

export interface Collected {
  readonly pid: number
  readonly stdout: Buffer
  readonly stderr: Buffer
  readonly pty: Buffer
  readonly end: Extract<ProcessEvent['event'], { case: 'end' }>['value'] | undefined
  readonly lost: readonly (readonly [number, number])[]
  readonly offsets: readonly number[]
}

/** Reads a stream of process events to its end. */
export async function collect(
  events: AsyncIterable<{ readonly event?: ProcessEvent | undefined }>,
): Promise<Collected> {
  const chunks: Record<'stdout' | 'stderr' | 'pty', Buffer[]> = { stdout: [], stderr: [], pty: [] }
  const lost: (readonly [number, number])[] = []
  const offsets: number[] = []
  let pid = 0
  let end: Collected['end']
  for await (const { event } of events) {
    const value = event?.event
    if (value?.case === 'start') pid = value.value.pid
    if (value?.case === 'end') end = value.value
    if (value?.case === 'lost') lost.push([Number(value.value.from), Number(value.value.to)])
    if (value?.case !== 'data') continue
    const { output, offset } = value.value
    if (output.case !== undefined) chunks[output.case].push(Buffer.from(output.value))
    if (offset !== undefined) offsets.push(Number(offset))
  }
  const joined = {
    stdout: Buffer.concat(chunks.stdout),
    stderr: Buffer.concat(chunks.stderr),
    pty: Buffer.concat(chunks.pty),
  }
  return { pid, end, lost, offsets, ...joined }
}
