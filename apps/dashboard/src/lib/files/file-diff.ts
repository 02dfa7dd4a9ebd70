import type { Capsule, FileChange } from '@wrenn/sdk'
import { WrennError } from '@wrenn/sdk'
import type { LineDiff } from './line-diff.js'
import { decodeText } from './text-file.js'

/** What can be shown of how a file's content differs between two points. */
export type FileDiff =
  | { readonly kind: 'text'; readonly diff: LineDiff }
  | { readonly kind: 'binary' }
  | { readonly kind: 'too-large' }
  /** The texts are the same, the bytes are not. */
  | { readonly kind: 'line-ends' }

/** The two ends of a comparison, by id; the newer one may be `current`. */
export interface Points {
  readonly from: string
  readonly to: string
}

/** Whether a change has two contents that can be set against each other. */
export function hasContent({ type, change, what }: Pick<FileChange, 'type' | 'change' | 'what'>): boolean {
  return type === 'file' && (change !== 'changed' || what.includes('content'))
}

/**
 * Reads both sides of a change and compares them.
 * @throws WrennError as reading does, but for files that are too large
 */
export async function fileDiff(
  capsule: Pick<Capsule, 'readAt'>,
  { from, to }: Points,
  { path, change }: Pick<FileChange, 'path' | 'change'>,
  signal: AbortSignal,
): Promise<FileDiff> {
  const read = async (point: string): Promise<Uint8Array> => await capsule.readAt(point, path, { signal })
  try {
    const [before, after] = await Promise.all([
      change === 'added' ? undefined : read(from),
      change === 'removed' ? undefined : read(to),
    ])
    const [old, now] = [before && decodeText(before, false), after && decodeText(after, false)]
    if ((before && !old) || (after && !now)) return { kind: 'binary' }
    const { lineDiff } = await import('./line-diff.js')
    const diff = lineDiff(old?.text, now?.text)
    return diff.lines.length === 0 && old && now ? { kind: 'line-ends' } : { kind: 'text', diff }
  } catch (error) {
    if (error instanceof WrennError && error.code === 'too_large') return { kind: 'too-large' }
    throw error
  }
}
