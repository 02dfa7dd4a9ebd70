import { DockerfileParser } from 'dockerfile-ast'
import { Util } from 'dockerfile-ast/lib/util.js'
import { type Heredoc, isPassedBy, liftHeredocs, unmarked } from './heredocs.js'
import { refuse } from './refuse.js'

/** One instruction as it is written, without its comments and line continuations. */
export interface Instruction {
  /** In capitals. */
  readonly keyword: string
  /** Of the file, from 1 on. */
  readonly line: number
  /** What follows the flags. */
  readonly rest: string
  /** Each without its two dashes; a flag without a value has the value ''. */
  readonly flags: readonly (readonly [name: string, value: string])[]
  readonly heredocs: readonly Heredoc[]
}

// Its own one needs `Buffer`, which browsers lack (findings/dockerfile-ast-browser.sh).
Util.isUTF8BOM = (char) => char === '\uFEFF'

const FLAG = /^--[a-z-]+(?:=\S*)?\s+/

/** The instructions of a Dockerfile, in their order. @throws WrennError `invalid_request` with the line */
export function readInstructions(source: string): Instruction[] {
  const { text, heredocs, unended } = liftHeredocs(source.replace(/^\uFEFF/, ''))
  if (unended !== undefined) throw refuse(unended, 'here-document', 'has no end: a line with its name alone')
  const file = DockerfileParser.parse(text)
  if (file.getEscapeCharacter() !== '\\') {
    throw refuse(1, 'escape', 'is a directive for Windows: lines go on after a backslash here')
  }
  return file.getInstructions().map((instruction): Instruction => {
    const { start } = instruction.getRange()
    const line = start.line + 1
    const [rest, flags] = splitFlags(joined(unmarked(instruction.getRawArgumentsContent() ?? '')), flagsOf(instruction))
    return { keyword: instruction.getKeyword(), line, rest, flags, heredocs: heredocs.get(line) ?? [] }
  })
}

function flagsOf(instruction: object): readonly string[] {
  if (!('getFlags' in instruction) || typeof instruction.getFlags !== 'function') return []
  const flags: readonly { toString(): string }[] = instruction.getFlags()
  return flags.map((flag) => unmarked(flag.toString()))
}

/** Flags that the parser knows, and those that stand before the rest of an instruction of which it knows none. */
function splitFlags(text: string, known: readonly string[]): readonly [string, Instruction['flags']] {
  const flags = [...known]
  let rest = text
  for (let found = FLAG.exec(rest); found !== null; found = FLAG.exec(rest)) {
    flags.push(found[0].trim())
    rest = rest.slice(found[0].length)
  }
  return [
    rest,
    flags
      .map((flag) => /^--([^=]*)=?([\s\S]*)$/.exec(flag) ?? [])
      .map(([, name = '', value = '']) => [name, value] as const),
  ]
}

/** One line of what may be several, as BuildKit joins them. */
function joined(raw: string): string {
  const [first = '', ...others] = raw.split(/\r?\n/)
  const lines = [first, ...others.filter((line) => !isPassedBy(line))]
  return lines
    .map((line) => line.replace(/\\[ \t]*$/, ''))
    .join('')
    .trim()
}

/** The strings of the JSON form; `undefined` for what is none, and so is text for a shell. */
export function jsonForm(rest: string): string[] | undefined {
  if (!rest.startsWith('[')) return undefined
  try {
    const value: unknown = JSON.parse(rest)
    return Array.isArray(value) && value.every((one) => typeof one === 'string') ? value : undefined
  } catch {
    return undefined
  }
}
