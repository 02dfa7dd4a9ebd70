import { splitDockerfileWords, templateBuildLimits } from '@wrenn/protocol'
import type { ArchiveEntry, BuildContext, ContextEntry, RecipeStep, RecipeUpload } from '../recipe.js'
import type { Heredoc } from './heredocs.js'
import { type Instruction, jsonForm } from './instructions.js'
import { refuse } from './refuse.js'
import { checkWord, type Scope } from './scope.js'

const ARCHIVE = /\.(?:tar|tar\.(?:gz|bz2|xz|zst)|tgz|tbz2?|txz)$/i

/** What `COPY` and `ADD` have said. */
export interface CopyWords {
  readonly sources: readonly string[]
  /** As it is written: the platform puts variables in it. */
  readonly target: string
  readonly heredocs: readonly Heredoc[]
  /** `undefined` for the context. */
  readonly from: string | undefined
  readonly owner: string
  readonly mode: string
}

/** @throws WrennError for flags and sources that are not supported */
export function copyWords(instruction: Instruction, scope: Scope): CopyWords {
  const { keyword, line, rest, heredocs } = instruction
  const fail = (sentence: string) => refuse(line, keyword, sentence)
  let from: string | undefined
  let owner = ''
  let mode = ''
  for (const [name, value] of instruction.flags) {
    if (name === 'from' && keyword === 'COPY') from = value
    else if (name === 'chown') owner = ownerOf(scope.expand(instruction, value))
    else if (name === 'chmod') mode = scope.expand(instruction, value)
    else if (name !== 'link')
      throw fail(
        `has --${name}, which is not supported: --chown, --chmod${keyword === 'COPY' ? ', --from' : ''} and --link are`,
      )
  }
  if (!/^(?:[0-7]{3,4})?$/.test(mode))
    throw fail(`has --chmod=${mode}; a mode in three or four octal digits is supported`)
  const words = jsonForm(rest) ?? splitDockerfileWords(rest)
  const target = words.at(-1)
  if (words.length < 2 || target === undefined) throw fail('needs a source and a destination')
  const written = words.slice(0, -1).filter((word) => !heredocs.some((heredoc) => heredoc.word === word))
  const sources = written.map((word) => scope.expand(instruction, word))
  const remote = sources.find((source) => /^(?:https?|ftp|git|ssh):\/\/|^git@/.test(source))
  if (remote !== undefined) throw fail('takes nothing from a network: fetch it in a RUN')
  const count = words.length - 1
  if (count > 1 && !/\/["']?$/.test(target)) throw fail('has several sources, so its destination must end in a slash')
  return { sources, target: checkWord(instruction, target), heredocs, from, owner, mode }
}

/** A number without a group stands for the group of that number, too. */
function ownerOf(owner: string): string {
  return /^\d+$/.test(owner) ? `${owner}:${owner}` : owner
}

/** The step and the upload for files of the context and here-documents. @throws WrennError for what is not there */
export async function copyFromContext(
  instruction: Instruction,
  words: CopyWords,
  scope: Scope,
  context: BuildContext | undefined,
): Promise<{ readonly step: RecipeStep; readonly upload: RecipeUpload }> {
  const fail = (sentence: string) => refuse(instruction.line, instruction.keyword, sentence)
  const texts = words.heredocs.map((heredoc): ArchiveEntry => {
    const text = heredoc.expands ? expandText(instruction, heredoc.content, scope) : heredoc.content
    return { as: heredoc.name, text }
  })
  if (context === undefined) throw fail('needs a context, which has the files and packs them')
  const all = words.sources.length > 0 ? await context.entries() : []
  const picked = words.sources.map((source) => ({ source, found: pick(all, source, fail) }))
  const missing = picked.find(({ found }) => found.length === 0)
  if (missing !== undefined) {
    throw fail(`finds no ${missing.source} in the context; a .dockerignore may leave it out`)
  }
  const found = picked.flatMap((one) => one.found)
  const targets = found.map((entry) => followed(all, entry, fail))
  const archive = targets.find(({ type, path }) => type === 'file' && ARCHIVE.test(path))
  if (instruction.keyword === 'ADD' && archive !== undefined)
    throw fail(`would unpack ${archive.path}, which is not supported: COPY it and unpack it in a RUN`)
  const laidOut = await digested([...found.flatMap((entry) => layOut(all, entry, fail)), ...texts], context)
  const entries = laidOut.map(({ packed }) => packed)
  const isFolder = targets.some(({ type }) => type === 'directory')
  const [only] = entries
  const isOneFile = found.length + texts.length === 1 && !isFolder
  if (found.length + texts.length > 1 && !/\/["']?$/.test(words.target)) {
    throw fail('finds several files, so its destination must end in a slash')
  }
  const files = laidOut.map(({ packed, digest }) => [packed.as, digest] as const).sort(([a], [b]) => compare(a, b))
  const hash = await sha256(JSON.stringify(files))
  const args = [isOneFile && only ? only.as : '.', words.target, words.owner || '0:0', words.mode]
  const told =
    files.length > templateBuildLimits.toldFiles
      ? {}
      : { files: files.map(([path, kind]) => [path, kind.slice(0, 24)] as const) }
  return {
    step: { type: 'COPY', args, filesHash: hash, ...told },
    upload: { hash, open: () => context.archive(entries) },
  }
}

function expandText(instruction: Instruction, content: string, scope: Scope): string {
  // Quotes mean nothing in it; a backslash before a dollar does.
  return content.replaceAll(/\\\$|\$\{[^}]*\}|\$[A-Za-z_]\w*/g, (found) =>
    found === '\\$' ? '$' : scope.expand(instruction, found),
  )
}

/** Entries that a source names, by Go's `filepath.Match` as Docker has it; each as it is, without what is in it. */
function pick(all: readonly ContextEntry[], source: string, fail: (sentence: string) => Error): ContextEntry[] {
  const path = normal(source)
  if (path === '') return [{ path: '', type: 'directory', mode: 0o755 }]
  const exact = all.find((entry) => entry.path === path)
  if (exact !== undefined) return [exact]
  const pattern = patternOf(path)
  if (pattern === undefined) throw fail(`has ${source}, which is no pattern: a range in it ends before it begins`)
  return all.filter((entry) => pattern.test(entry.path))
}

function normal(path: string): string {
  const parts: string[] = []
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts.join('/')
}

/** `undefined` for what is none. */
function patternOf(glob: string): RegExp | undefined {
  const source = glob.replaceAll(
    /\\(.)|\[(\^?)((?:\\.|[^\]])+)\]|\*|\?|[.+^${}()|[\]]/g,
    (found, escaped?: string, not?: string, set?: string) => {
      if (escaped !== undefined) return quote(escaped)
      if (set !== undefined) return `[${not === '^' ? '^/' : ''}${members(set)}]`
      if (found === '*') return '[^/]*'
      return found === '?' ? '[^/]' : quote(found)
    },
  )
  try {
    return new RegExp(`^${source}$`, 'su')
  } catch (error) {
    if (error instanceof SyntaxError) return undefined
    throw error
  }
}

/** What is between brackets; all but the hyphen between two stands for itself there. */
function members(set: string): string {
  return set.replaceAll(/\\(.)|\^/gsu, (_, escaped = '^') => (/[\\\]^-]/.test(escaped) ? `\\${escaped}` : escaped))
}

function quote(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\/]/g, '\\$&')
}

/**
 * Where it comes to lie: of a folder its content, a file under its own name. A link that is named itself stands for
 * what it leads to.
 */
function layOut(all: readonly ContextEntry[], entry: ContextEntry, fail: (sentence: string) => Error): ArchiveEntry[] {
  const target = followed(all, entry, fail)
  const name = entry.path.slice(entry.path.lastIndexOf('/') + 1)
  if (target.type !== 'directory') return [{ as: name, entry: target }]
  const prefix = target.path === '' ? '' : `${target.path}/`
  return all
    .filter(({ path }) => path.startsWith(prefix))
    .map((one) => ({ as: one.path.slice(prefix.length), entry: one }))
}

function followed(all: readonly ContextEntry[], entry: ContextEntry, fail: (sentence: string) => Error): ContextEntry {
  let at = entry
  for (let hops = 0; at.type === 'symlink'; hops++) {
    const link = at.link ?? ''
    const folder = at.path.includes('/') ? at.path.slice(0, at.path.lastIndexOf('/')) : ''
    const path = normal(link.startsWith('/') ? link : `${folder}/${link}`)
    const next = all.find((one) => one.path === path)
    if (next === undefined || hops > 40)
      throw fail(`finds at ${entry.path} a link to ${link}, which is not in the context`)
    at = next
  }
  return at
}

/** With what decides whether files are the same: names, kinds, modes and content; times do not. */
async function digested(entries: readonly ArchiveEntry[], context: BuildContext) {
  const found: { packed: ArchiveEntry; digest: string }[] = []
  for (const one of entries) {
    if ('text' in one) found.push({ packed: one, digest: await sha256(`text 644 ${one.text}`) })
    else {
      const { type, path, mode, link } = one.entry
      const content = type === 'file' ? await context.digest(path) : link
      const packed = type === 'file' && content !== undefined ? { ...one, digest: content } : one
      found.push({ packed, digest: await sha256(`${type} ${mode.toString(8)} ${content ?? ''}`) })
    }
  }
  return found
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

async function sha256(text: string): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text)))
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
