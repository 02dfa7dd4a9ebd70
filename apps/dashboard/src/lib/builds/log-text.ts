import type { BuildLine } from '@wrenn/sdk'

/** A piece of a line, and whether it is what was searched for. */
export interface FoundPiece {
  readonly text: string
  readonly isFound: boolean
}

/** The lines that have a text, whatever its capitals; none for no text. */
export function linesWith(lines: readonly BuildLine[], search: string): readonly number[] {
  const wanted = search.toLowerCase()
  if (wanted === '') return []
  return lines.flatMap(({ message }, index) => (message.toLowerCase().includes(wanted) ? [index] : []))
}

/** A line, cut at what is searched for. */
export function piecesOf(message: string, search: string): readonly FoundPiece[] {
  const [text, wanted] = [message.toLowerCase(), search.toLowerCase()]
  // A letter that has more of them in small has places of its own there.
  if (wanted === '' || text.length !== message.length) return [{ text: message, isFound: false }]
  const pieces: FoundPiece[] = []
  let from = 0
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, from)) {
    if (at > from) pieces.push({ text: message.slice(from, at), isFound: false })
    from = at + wanted.length
    pieces.push({ text: message.slice(at, from), isFound: true })
  }
  if (from < message.length) pieces.push({ text: message.slice(from), isFound: false })
  return pieces
}

/** The whole log, to keep: each line with its time and step. */
export function logText(lines: readonly BuildLine[]): string {
  return lines.map(({ at, step, message }) => `${at.toISOString()} ${step.padEnd(8)} ${message}\n`).join('')
}
