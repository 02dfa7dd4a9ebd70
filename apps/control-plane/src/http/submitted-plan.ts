import { AppError } from '@wrenn/base'
import { type StartTemplateBuildInput, type TemplateBuildStepInput, templateBuildLimits } from '@wrenn/protocol'
import { maskedLines, type SubmittedPlan } from '../domain/templates/index.js'
import type { BuildStep } from '../store/schema.js'

const SHELL = ['/bin/sh', '-c'] as const
const ROOT = '0:0'
const DEFAULT = ':default'

/** What a client wants built, by steps that mean what a Dockerfile's do. @throws AppError `invalid_request` that names the step */
export function toSubmittedPlan(body: StartTemplateBuildInput): SubmittedPlan {
  const {
    start_command: startCmd,
    entrypoint,
    command,
    ports,
    ready_command: readyCmd,
    no_cache: force,
    secrets,
    host_tags: hostTags,
  } = body
  if (startCmd !== undefined && (entrypoint ?? command) !== undefined) {
    throw new AppError('invalid_request', 'start_command: is not beside entrypoint and command.')
  }
  const known = new Set(Object.keys(secrets))
  const stages = body.stages.map(({ from, steps }, at) => ({
    from: nameOf(from),
    steps: steps.map((step, index) => {
      const problem = problemOf(step, at, known)
      if (problem !== undefined) {
        throw new AppError('invalid_request', `stages.${at}.steps.${index}: ${step.type} ${problem}.`)
      }
      return toStep(step)
    }),
  }))
  checkSecretLines(secrets)
  const last = stages.pop()
  if (last === undefined) throw new Error('the schema asks for a stage')
  const images = imagesOf(body)
  const commands = { startCmd, entrypoint, command, ports, readyCmd }
  const plan = { ...last, stages, images, ...commands, hostTags, force, isDockerfile: true, secretValues: secrets }
  return { ...plan, files: rememberedFiles(body) }
}

/** Of a template that is its own name; images have tags of that name, too. */
function nameOf(from: string): string {
  return from.endsWith(DEFAULT) && !from.includes('/') ? from.slice(0, -DEFAULT.length) : from
}

/** Images of uploaded files, by what stages call them. @throws AppError `invalid_request` for one that none begins with, or that is there twice */
function imagesOf({ image_files: files, stages }: StartTemplateBuildInput): SubmittedPlan['images'] {
  const begins = new Set(stages.map(({ from }) => nameOf(from)))
  const images = Object.entries(files).map(([from, { files_hash: hash, image }]) => {
    const reference = nameOf(from)
    if (begins.has(reference)) return [reference, { reference, adopts: 'all', file: { hash, image } }] as const
    throw new AppError('invalid_request', `image_files: no stage begins with ${from}.`)
  })
  const twice = images.find(([reference], at) => images.findIndex(([other]) => other === reference) !== at)
  if (twice === undefined) return Object.fromEntries(images)
  throw new AppError('invalid_request', `image_files: ${twice[0]} is there twice; ${twice[0]}${DEFAULT} is the same.`)
}

/** Each is looked for in all that is printed. */
function checkSecretLines(secrets: Readonly<Record<string, string>>): void {
  const { secretLines: max } = templateBuildLimits
  const lines = Object.values(secrets).reduce((sum, value) => sum + maskedLines(value).length, 0)
  if (lines <= max) return
  throw new AppError(
    'invalid_request',
    `secrets: have ${lines} lines, and the log of a build can hide ${max}; a file that is not secret is for COPY.`,
  )
}

/** Of each step in the order of all, until they are too many: they are kept with the build. */
function rememberedFiles({ stages }: StartTemplateBuildInput) {
  let count = 0
  return stages.flatMap(({ steps }) =>
    steps.map(({ files }) => {
      count += files?.length ?? 0
      return count <= templateBuildLimits.rememberedFiles ? files : undefined
    }),
  )
}

function toStep({ files_hash: filesHash, files: _, ...step }: TemplateBuildStepInput): BuildStep {
  const { type, stage } = step
  if (type === 'RUN') return { shell: SHELL, ...step, force: false }
  if (type !== 'COPY') return { ...step, force: false }
  const [source = '', target = '', owner = '', mode = ''] = step.args
  const args = [source, target, owner === '' && stage === undefined ? ROOT : owner, mode]
  return { ...step, args, filesHash, force: false }
}

/** What is wrong with a step, whatever it begins with. */
function problemOf(step: TemplateBuildStepInput, at: number, secrets: ReadonlySet<string>): string | undefined {
  const { type, args, stage, files_hash: filesHash } = step
  const [first = '', second = '', , mode = ''] = args
  if (type !== 'COPY' && (stage !== undefined || filesHash !== undefined)) return 'takes no files'
  if (type !== 'RUN' && (step.secrets ?? step.shell ?? step.scratch) !== undefined)
    return 'takes no shell, secrets and scratch'
  if (args.some((arg) => arg.length > 4096) && type !== 'RUN' && type !== 'ENV') return 'has more than 4096 characters'
  switch (type) {
    case 'RUN': {
      if (args.length > 2) return 'needs a command, and at most a user'
      const ids = step.secrets?.map(({ id }) => id) ?? []
      const unknown = ids.find((id) => !secrets.has(id))
      if (unknown !== undefined) return `needs the secret ${unknown}, which is not among secrets`
      const twice = ids.find((id, index) => ids.indexOf(id) !== index)
      return twice === undefined ? undefined : `names the secret ${twice} twice; one entry may have both path and env`
    }
    case 'COPY':
      if (first === '' || second === '' || args.length > 4) return 'needs a source and a destination'
      if ((stage === undefined) === (filesHash === undefined)) return 'needs files_hash or stage, one of the two'
      if (stage !== undefined && stage >= at) return 'needs a stage before its own'
      if (first.startsWith('/') || first.split('/').includes('..')) return 'needs a source below its folder'
      if (stage !== undefined && /^[./]*$/.test(first)) return 'needs the name of a file or folder'
      return /^(?:[0-7]{3,4})?$/.test(mode) ? undefined : 'has a mode that is none, such as 0644'
    case 'ENV':
      return args.length % 2 !== 0 || args.some((name, index) => index % 2 === 0 && !/^[^=]{1,256}$/.test(name))
        ? 'needs names without = and their values'
        : undefined
    default:
      return first === '' || args.length > 1 ? `needs a ${type === 'USER' ? 'user' : 'path'}` : undefined
  }
}
