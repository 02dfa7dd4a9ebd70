import { splitDockerfileWords } from '@wrenn/protocol'

/** A here-document of an instruction. */
export interface Heredoc {
  /** The word that names it, as it stands in the instruction, with `<<`. */
  readonly word: string
  readonly name: string
  readonly content: string
  /** Variables in it are replaced: no part of its name is quoted. */
  readonly expands: boolean
}

/** A Dockerfile without its here-documents; all lines have the numbers that they had. */
export interface LiftedText {
  readonly text: string
  /** By the number of the line, from 1 on, where the instruction begins. */
  readonly heredocs: ReadonlyMap<number, readonly Heredoc[]>
  /** The line of an instruction whose here-document has no end. */
  readonly unended?: number
}

/**
 * Stands for `<<` of what is no here-document, or one that was lifted: of the private use area, so that nothing takes
 * it for one.
 */
const MARK = '\uE000'

/**
 * Takes here-documents out of a Dockerfile by BuildKit's rule: a word that begins with `<<`, or a number and it. The
 * parser's own rule also finds them in quotes, and misses those with a number (findings/dockerfile-ast-heredocs.sh).
 */
export function liftHeredocs(source: string): LiftedText {
  const lines = source.split(/\r?\n/)
  const kept: string[] = []
  const heredocs = new Map<number, Heredoc[]>()
  for (let at = 0; at < lines.length; ) {
    const first = at
    const header: string[] = []
    for (let goesOn = true; goesOn && at < lines.length; at++) {
      const line = lines[at] ?? ''
      kept.push(line.replaceAll('<<', MARK))
      if (header.length > 0 && isPassedBy(line)) continue
      header.push(line.replace(/\\[ \t]*$/, ''))
      goesOn = /\\[ \t]*$/.test(line) && !/^\s*#/.test(line)
    }
    const found: Heredoc[] = []
    for (const word of wordsOf(header.join(''))) {
      const begun = beginOf(word)
      if (begun === undefined) continue
      const end = lines.findIndex(
        (line, index) => index >= at && (begun.chomps ? line.replace(/^\t+/, '') : line) === begun.name,
      )
      if (end < 0) return { text: '', heredocs, unended: first + 1 }
      const body = lines.slice(at, end).map((line) => (begun.chomps ? line.replace(/^\t+/, '') : line))
      found.push({ word, name: begun.name, expands: begun.expands, content: body.map((line) => `${line}\n`).join('') })
      for (; at <= end; at++) kept.push('')
    }
    if (found.length > 0) heredocs.set(first + 1, found)
  }
  return { text: kept.join('\n'), heredocs }
}

/** What the marks stand for. */
export function unmarked(text: string): string {
  return text.replaceAll(MARK, '<<')
}

/** Blank lines and comments inside an instruction. */
export function isPassedBy(line: string): boolean {
  return /^\s*(?:#|$)/.test(line)
}

function wordsOf(header: string): string[] {
  return /^\s*(?:RUN|COPY|ADD)\s/i.test(header) ? splitDockerfileWords(header) : []
}

function beginOf(word: string) {
  const [, dash, rest = ''] = /^\d*<<(-?)([^<]+)$/.exec(word) ?? []
  if (rest === '') return undefined
  const name = rest.replaceAll(/["']/g, '').replaceAll(/\\(.)/g, '$1')
  return { name, chomps: dash === '-', expands: name === rest }
}
