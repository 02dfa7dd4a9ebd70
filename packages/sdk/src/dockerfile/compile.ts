import { shellLine, splitDockerfileWords, templateBuildLimits } from '@wrenn/protocol'
import type { BuildContext, Recipe, RecipeStage, RecipeStep, RecipeUpload } from '../recipe.js'
import { copyFromContext, copyWords } from './copy.js'
import { type Instruction, jsonForm, readInstructions } from './instructions.js'
import { refusalOf, refuse } from './refuse.js'
import { runStep } from './run.js'
import { BuildArgs, checkWord, Scope } from './scope.js'

const MAX_LABEL_LENGTH = 300

/** How a Dockerfile is read. */
export interface DockerfileOptions {
  /** Values of `ARG`s. */
  readonly buildArgs?: Readonly<Record<string, string>>
  /** Ids of secrets that the build will be given. */
  readonly secrets?: readonly string[]
  /** Ends with this stage. @default the last one */
  readonly target?: string
  /** Files that `COPY` and `ADD` take. @default none */
  readonly context?: BuildContext
}

/** A recipe, and what of the file has no effect, in sentences. */
export interface DockerfileRecipe extends Recipe {
  readonly notes: readonly string[]
}

/**
 * The recipe that a Dockerfile is: docs/dockerfiles.md says what of them is understood.
 * @throws WrennError `invalid_request` that names the line and the instruction which is not understood
 * @example
 * const recipe = await readDockerfile('FROM base\nRUN apt-get update', { secrets: ['token'] })
 * await wrenn.templates.build('mine', recipe, { secrets: { token } })
 */
export async function readDockerfile(text: string, options: DockerfileOptions = {}): Promise<DockerfileRecipe> {
  return await new Compiler(options).compile(readInstructions(text))
}

/** An instruction that is refused. */
export interface DockerfileProblem {
  /** From 1 on: where the instruction begins. */
  readonly line: number
  readonly instruction: string
  /** One sentence, with the line. */
  readonly message: string
}

/** What is to be said of a Dockerfile. */
export interface DockerfileCheck {
  /** In the order of their lines. An instruction that makes use of one that is refused may be refused because of it. */
  readonly problems: readonly DockerfileProblem[]
  /** What has no effect, in sentences. */
  readonly notes: readonly string[]
}

/**
 * All that `readDockerfile` would refuse, while it stops at the first.
 * @throws whatever the context fails with
 * @example
 * const { problems } = await checkDockerfile(text)
 * for (const { line, message } of problems) console.error(line, message)
 */
export async function checkDockerfile(text: string, options: DockerfileOptions = {}): Promise<DockerfileCheck> {
  const problems: DockerfileProblem[] = []
  const take = (error: unknown): void => {
    const problem = refusalOf(error)
    if (problem === undefined) throw error
    problems.push(problem)
  }
  try {
    const { notes } = await new Compiler(options, take).compile(readInstructions(text))
    return { problems, notes }
  } catch (error) {
    take(error)
    return { problems, notes: [] }
  }
}

type Command = { readonly exec: readonly string[] } | { readonly line: string; readonly shell: readonly string[] }

interface Stage {
  /** No stage of the file, but what a `COPY` names. */
  readonly isForeign: boolean
  readonly names: readonly string[]
  readonly from: string
  readonly scope: Scope
  readonly steps: RecipeStep[]
  readonly uploads: RecipeUpload[]
  shell: readonly string[]
  entrypoint: Command | undefined
  command: Command | undefined
  hasOwnCommand: boolean
  readonly ports: number[]
  health: Command | undefined
}

function emptyStage(origin: Pick<Stage, 'isForeign' | 'names' | 'from' | 'scope'>): Stage {
  const none = { entrypoint: undefined, command: undefined, hasOwnCommand: false, health: undefined }
  return { ...origin, ...none, steps: [], uploads: [], ports: [], shell: ['/bin/sh', '-c'] }
}

class Compiler {
  readonly #options: DockerfileOptions
  readonly #args: BuildArgs
  readonly #globals: Scope
  readonly #secrets: ReadonlySet<string>
  readonly #stages: Stage[] = []
  readonly #notes: string[] = []
  readonly #onRefused: (error: unknown) => void

  /** @param onRefused what to do with a refusal, after which the next instruction is read @default throws it */
  constructor(options: DockerfileOptions, onRefused: (error: unknown) => void = rethrow) {
    this.#options = options
    this.#onRefused = onRefused
    this.#args = new BuildArgs(options.buildArgs ?? {})
    this.#globals = new Scope(this.#args)
    this.#secrets = new Set(options.secrets)
  }

  async compile(instructions: readonly Instruction[]): Promise<DockerfileRecipe> {
    for (const instruction of instructions) {
      try {
        await this.#add(instruction)
      } catch (error) {
        this.#onRefused(error)
        if (instruction.keyword === 'FROM') this.#standIn()
      }
    }
    const { target } = this.#options
    const at = target === undefined ? this.#stages.length - 1 : this.#find(target)
    const last = this.#stages[at]
    if (last === undefined) throw refuse(1, 'FROM', target === undefined ? 'is missing' : `has no stage ${target}`)
    const unused = this.#args.unused.map((name) => `The build argument ${name} is used by no ARG.`)
    return { ...this.#recipe(at), ...commandsOf(last), notes: [...this.#notes, ...unused] }
  }

  /** The stages that the one at `last` needs, numbered anew. */
  #recipe(last: number): Recipe {
    const needed = new Set([last])
    for (let at = last; at >= 0; at--) {
      if (!needed.has(at)) continue
      for (const { stage } of this.#stages[at]?.steps ?? []) if (stage !== undefined) needed.add(stage)
    }
    const order = [...needed].sort((a, b) => a - b)
    const stages = order.map((at): RecipeStage => {
      const { from = '', steps = [] } = this.#stages[at] ?? {}
      return {
        from,
        steps: steps.map((step) => (step.stage === undefined ? step : { ...step, stage: order.indexOf(step.stage) })),
      }
    })
    const uploads = new Map(order.flatMap((at) => this.#stages[at]?.uploads ?? []).map((one) => [one.hash, one]))
    return { stages, uploads: [...uploads.values()] }
  }

  async #add(instruction: Instruction): Promise<void> {
    const { keyword, line } = instruction
    if (keyword === 'FROM') return this.#from(instruction)
    const stage = this.#stages.at(-1)
    if (keyword === 'ARG') return declare(stage?.scope ?? this.#globals, instruction)
    if (stage === undefined) throw refuse(line, keyword, 'stands before the first FROM, where only ARG may')
    const before = stage.steps.length
    await this.#inStage(stage, instruction)
    for (let at = before; at < stage.steps.length; at++) {
      const step = stage.steps[at]
      if (step !== undefined) stage.steps[at] = { ...step, label: labelOf(instruction), line }
    }
  }

  async #inStage(stage: Stage, instruction: Instruction): Promise<void> {
    const { keyword, line, rest } = instruction
    switch (keyword) {
      case 'RUN':
        stage.steps.push(runStep(instruction, stage.shell, stage.scope, this.#secrets))
        return
      case 'COPY':
      case 'ADD':
        return await this.#copy(stage, instruction)
      case 'ENV': {
        const pairs = pairsOf(instruction)
        stage.steps.push(withArgs(stage, { type: 'ENV', args: pairs.flat() }))
        stage.scope.setEnvs(pairs)
        return
      }
      case 'WORKDIR':
      case 'USER': {
        if (rest === '') throw refuse(line, keyword, keyword === 'USER' ? 'needs a user' : 'needs a path')
        stage.steps.push(withArgs(stage, { type: keyword, args: [checkWord(instruction, rest)] }))
        return
      }
      case 'SHELL': {
        const shell = jsonForm(rest)
        if (shell === undefined || shell.length === 0)
          throw refuse(line, keyword, 'needs its program as JSON: ["/bin/bash", "-c"]')
        stage.shell = shell
        return
      }
      case 'CMD':
        stage.command = commandOf(stage, rest)
        stage.hasOwnCommand = true
        return
      case 'ENTRYPOINT':
        stage.entrypoint = commandOf(stage, rest)
        // That of what the stage begins with was for another entry point.
        if (!stage.hasOwnCommand) stage.command = undefined
        return
      case 'HEALTHCHECK':
        stage.health = healthOf(stage, instruction)
        return
      case 'EXPOSE':
        stage.ports.push(...portsOf(stage, instruction))
        this.#note(instruction, 'opens nothing: each port of a capsule has a URL')
        return
      case 'VOLUME':
        this.#note(instruction, 'has no effect: all files are kept')
        return
      case 'STOPSIGNAL':
      case 'LABEL':
      case 'MAINTAINER':
        this.#note(instruction, 'has no effect')
        return
      default:
        throw refuse(
          line,
          keyword,
          keyword === 'ONBUILD'
            ? 'is not supported: nothing builds on a template that way'
            : 'is no instruction that is known',
        )
    }
  }

  /** For a stage whose `FROM` was refused, so that not all that is in it is refused, too. */
  #standIn(): void {
    const scope = new Scope(this.#args, this.#globals)
    this.#stages.push(emptyStage({ isForeign: false, names: [], from: '', scope }))
  }

  #from(instruction: Instruction): void {
    const { line, rest, flags } = instruction
    for (const [name, value] of flags) {
      const wanted = this.#globals.expandGlobal(instruction, value)
      if (name !== 'platform') throw refuse(line, 'FROM', `has --${name}, which is not supported`)
      if (!/^linux\/(?:amd64|x86_64)$/.test(wanted))
        throw refuse(line, 'FROM', `is for ${wanted}; capsules are linux/amd64`)
    }
    const [word = '', as, name, ...more] = splitDockerfileWords(rest)
    const from = this.#globals.expandGlobal(instruction, word)
    if (from === '')
      throw refuse(line, 'FROM', `needs a template or an image${word === '' ? '' : `; ${word} is empty`}`)
    if (from === 'scratch') throw refuse(line, 'FROM', 'scratch is not supported: a capsule needs a system to boot')
    if (more.length > 0 || (as !== undefined && (as.toLowerCase() !== 'as' || name === undefined))) {
      throw refuse(line, 'FROM', 'has more than a name and AS with another one')
    }
    const names = name === undefined ? [] : [name.toLowerCase()]
    const parent = this.#stages.findLast((stage) => stage.names.includes(from.toLowerCase()))
    if (parent === undefined) {
      this.#stages.push(emptyStage({ isForeign: false, names, from, scope: new Scope(this.#args, this.#globals) }))
    } else {
      // The same steps: their results are there when they are asked for again.
      const copies = { steps: [...parent.steps], uploads: [...parent.uploads], ports: [...parent.ports] }
      this.#stages.push({ ...parent, ...copies, hasOwnCommand: false, names, scope: parent.scope.child() })
    }
  }

  async #copy(stage: Stage, instruction: Instruction): Promise<void> {
    const words = copyWords(instruction, stage.scope)
    if (words.from === undefined) {
      const { step, upload } = await copyFromContext(instruction, words, stage.scope, this.#options.context)
      stage.steps.push(withArgs(stage, step))
      stage.uploads.push(upload)
      return
    }
    if (words.heredocs.length > 0) throw refuse(instruction.line, 'COPY', 'has --from and a here-document')
    const at = this.#stageOf(words.from, stage)
    for (const source of words.sources) {
      const path = source.replace(/^(?:\.?\/)+/, '').replace(/\/+$/, '')
      if (path === '' || path === '.' || path.split('/').includes('..')) {
        throw refuse(instruction.line, 'COPY', `takes ${source} of a stage: name files or folders below /`)
      }
      stage.steps.push(
        withArgs(stage, { type: 'COPY', args: [path, words.target, words.owner, words.mode], stage: at }),
      )
    }
  }

  /** A stage before `stage`; what is none is a template or an image of that name. */
  #stageOf(name: string, stage: Stage): number {
    const at = this.#find(name)
    if (at >= 0 && this.#stages[at] !== stage) return at
    const known = this.#stages.findIndex((one) => one.isForeign && one.from === name)
    if (known >= 0) return known
    // It stands before the one that needs it, whose number nobody has yet.
    const scope = new Scope(this.#args, this.#globals)
    const foreign = emptyStage({ isForeign: true, names: [], from: name, scope })
    this.#stages.splice(this.#stages.length - 1, 0, foreign)
    return this.#stages.length - 2
  }

  #find(name: string): number {
    const named = this.#stages.findLastIndex(({ names }) => names.includes(name.toLowerCase()))
    if (named >= 0 || !/^\d+$/.test(name)) return named
    const numbered = this.#stages.filter(({ isForeign }) => !isForeign)
    const stage = numbered[Number(name)]
    return stage === undefined ? -1 : this.#stages.indexOf(stage)
  }

  #note({ keyword, line }: Instruction, sentence: string): void {
    this.#notes.push(`Line ${line}: ${keyword} ${sentence}.`)
  }
}

function rethrow(error: unknown): never {
  throw error
}

function declare(scope: Scope, instruction: Instruction): void {
  const words = splitDockerfileWords(instruction.rest)
  if (words.length === 0) throw refuse(instruction.line, 'ARG', 'needs a name')
  for (const word of words) {
    const [, name = word, value] = /^([^=]+)=([\s\S]*)$/.exec(word) ?? []
    if (!/^[A-Za-z_]\w*$/.test(name)) throw refuse(instruction.line, 'ARG', `has ${name}, which is no name`)
    scope.declare(instruction, name, value)
  }
}

/** `NAME=value …`, or the old form of one name and the rest of the line. */
function pairsOf(instruction: Instruction): [string, string][] {
  const { rest, line } = instruction
  const words = splitDockerfileWords(rest)
  const [first = ''] = words
  if (first === '') throw refuse(line, 'ENV', 'needs a name and a value')
  if (!first.includes('=')) {
    if (!isEnvName(first)) throw refuse(line, 'ENV', `has ${first}, which is no name`)
    const value = rest.slice(first.length).trim()
    if (value === '') throw refuse(line, 'ENV', `has ${first} without a value`)
    return [[first, checkWord(instruction, value)]]
  }
  return words.map((word, index) => {
    const [, name = '', value = ''] = /^([^=]+)=([\s\S]*)$/.exec(word) ?? []
    // The word itself may be part of a value.
    if (!isEnvName(name)) throw refuse(line, 'ENV', `has a word ${index + 1} that is not NAME=value; quote blanks`)
    return [name, checkWord(instruction, value)]
  })
}

function isEnvName(name: string): boolean {
  return name !== '' && !/["'\\\s]/.test(name)
}

/** With the build arguments that its words name. */
function withArgs({ scope }: Stage, step: RecipeStep): RecipeStep {
  const envs = scope.argsIn(step.args)
  return Object.keys(envs).length === 0 ? step : { ...step, envs }
}

function commandOf({ shell }: Stage, rest: string): Command | undefined {
  const exec = jsonForm(rest)
  if (exec !== undefined) return { exec }
  return rest === '' ? undefined : { line: rest, shell }
}

function healthOf(stage: Stage, { line, rest, flags }: Instruction): Command | undefined {
  for (const [name] of flags) {
    if (!['interval', 'timeout', 'start-period', 'start-interval', 'retries'].includes(name)) {
      throw refuse(line, 'HEALTHCHECK', `has --${name}, which is not known`)
    }
  }
  const [, kind = '', command = ''] = /^(\S*)\s*([\s\S]*)$/.exec(rest) ?? []
  if (kind.toUpperCase() === 'NONE') return undefined
  if (kind.toUpperCase() !== 'CMD' || command === '')
    throw refuse(line, 'HEALTHCHECK', 'needs CMD and a command, or NONE')
  return commandOf(stage, command)
}

/** Ports of TCP; of a range the first. What depends on the image, and what is none, is waited for by nobody. */
function portsOf({ scope }: Stage, instruction: Instruction): readonly number[] {
  return splitDockerfileWords(instruction.rest).flatMap((word) => {
    try {
      const said = scope.expand(instruction, word)
      const port = Number(/^(\d{1,5})(?:-\d{1,5})?(?:\/tcp)?$/i.exec(said)?.[1])
      return port >= 1 && port <= 65_535 ? [port] : []
    } catch {
      return []
    }
  })
}

function commandsOf({ entrypoint, command, ports, health }: Stage) {
  // One for a shell takes no arguments.
  const args = entrypoint !== undefined && 'line' in entrypoint ? undefined : command
  return {
    ...(entrypoint === undefined ? {} : { entrypoint: argvOf(entrypoint) }),
    ...(args === undefined ? {} : { command: argvOf(args) }),
    ...(ports.length === 0 ? {} : { ports: [...new Set(ports)].slice(0, templateBuildLimits.ports) }),
    ...(health === undefined || argvOf(health).length === 0 ? {} : { readyCommand: shellLine(argvOf(health)) }),
  }
}

function argvOf(command: Command): readonly string[] {
  return 'exec' in command ? command.exec : [...command.shell, command.line]
}

/** As logs call it. Values of `ENV` are often secret, so of them there are only the names. */
function labelOf(instruction: Instruction): string {
  const { keyword, flags, rest, heredocs } = instruction
  const said = flags.map(([name, value]) => (value === '' ? `--${name}` : `--${name}=${value}`))
  const shown =
    keyword === 'ENV'
      ? pairsOf(instruction)
          .map(([name]) => `${name}=…`)
          .join(' ')
      : rest
  const [body = ''] = heredocs.map(({ content }) => content.trim().split('\n')[0])
  const text = [keyword, ...said, shown, ...(body === '' ? [] : [`(${body} …)`])].join(' ').replaceAll(/\s+/g, ' ')
  return text.length > MAX_LABEL_LENGTH ? `${text.slice(0, MAX_LABEL_LENGTH)}…` : text
}
