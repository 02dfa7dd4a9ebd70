import { type StructuredPatchHunk, structuredPatch } from 'diff'

/** A line of a unified difference; `note` is about the line before it. */
export interface DiffLine {
  readonly kind: 'hunk' | 'same' | 'added' | 'removed' | 'note'
  readonly text: string
  /** Its number in the older text, from 1. */
  readonly before: number | undefined
  /** Its number in the newer text, from 1. */
  readonly after: number | undefined
}

/** What differs between two texts, line by line. */
export interface LineDiff {
  readonly lines: readonly DiffLine[]
  readonly added: number
  readonly removed: number
  /** The texts differ too much to be set against each other: first stands all of the older one, then all of the newer one. */
  readonly isWhole: boolean
}

const CONTEXT_LINES = 3
/** Searching for more would keep the page from answering: the effort grows with its square. */
const MAX_EDITS = 1_000
const kinds = { '+': 'added', '-': 'removed', ' ': 'same', '\\': 'note' } as const

/** `undefined` for a text: there was no file. */
export function lineDiff(before: string | undefined, after: string | undefined): LineDiff {
  // A text that is compared with nothing differs in every line, and needs no search.
  const isSearched = before !== undefined && after !== undefined
  const found = isSearched
    ? structuredPatch('', '', before, after, undefined, undefined, { context: CONTEXT_LINES, maxEditLength: MAX_EDITS })
    : undefined
  const lines = (found?.hunks ?? wholeHunks(before, after)).flatMap(linesOf)
  const count = (kind: DiffLine['kind']): number => lines.filter((line) => line.kind === kind).length
  return { lines, added: count('added'), removed: count('removed'), isWhole: isSearched && found === undefined }
}

function wholeHunks(before = '', after = ''): StructuredPatchHunk[] {
  const signed = (text: string, sign: string): string[] => splitLines(text).map((line) => sign + line)
  const lines = [...signed(before, '-'), ...signed(after, '+')]
  if (lines.length === 0) return []
  const [oldLines, newLines] = [splitLines(before).length, splitLines(after).length]
  return [{ oldStart: Math.min(1, oldLines), oldLines, newStart: Math.min(1, newLines), newLines, lines }]
}

function splitLines(text: string): string[] {
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop()
  return lines
}

function linesOf({ oldStart, oldLines, newStart, newLines, lines }: StructuredPatchHunk): DiffLine[] {
  let before = oldStart
  let after = newStart
  const head = `@@ -${oldStart},${oldLines} +${newStart},${newLines} @@`
  const rows: DiffLine[] = [{ kind: 'hunk', text: head, before: undefined, after: undefined }]
  for (const line of lines) {
    const kind = kindOf(line)
    rows.push({
      kind,
      text: line.slice(kind === 'note' ? 2 : 1),
      before: kind === 'same' || kind === 'removed' ? before : undefined,
      after: kind === 'same' || kind === 'added' ? after : undefined,
    })
    if (kind === 'same' || kind === 'removed') before += 1
    if (kind === 'same' || kind === 'added') after += 1
  }
  return rows
}

function kindOf(line: string): DiffLine['kind'] {
  const [sign = ' '] = line
  return sign in kinds ? kinds[sign as keyof typeof kinds] : 'same'
}
