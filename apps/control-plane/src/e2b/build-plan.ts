import { AppError } from '@wrenn/base'
import {
  buildStepTypes,
  filesHashSchema,
  formatImageReference,
  minimumMemoryMib,
  parseImageReference,
  requestBody,
  templateBuildLimits,
  text,
} from '@wrenn/protocol'
import { z } from 'zod'
import type { RegistryLogin, SubmittedPlan } from '../domain/templates/index.js'
import type { BuildStep } from '../store/schema.js'
import { DEFAULT_TAG } from '../store/snapshots.js'
import { refuseUnsupported } from './network.js'
import { taggedNameSchema, tagSchema, templateNameOf } from './template-id.js'

/** What clients begin with that name nothing; ours is made the same way, of Debian. */
const CLIENTS_BASE = /^e2bdev\/base(?::latest)?$/
const BASE = 'base'

const line = text(templateBuildLimits.lineLength)
/** Of a login; an account's file of Google has some thousands. */
const secretLine = text(16 * 1024, 1)
const optionalLine = line.nullish().transform((value) => value || undefined)

/** Body of `POST /v3/templates`, and of `/v2/templates`, where the name is an alias. */
export const beginBuildSchema = requestBody({
  name: taggedNameSchema.optional(),
  alias: taggedNameSchema.optional(),
  tags: z.array(tagSchema).max(templateBuildLimits.tags).nullish(),
  cpuCount: z.int().min(1).max(1024).nullish(),
  memoryMB: z.int().min(minimumMemoryMib).max(4_194_304).nullish(),
  minFreeDiskMb: z.unknown().optional(),
  teamID: text(200).nullish(),
})
type BeginBuildInput = z.output<typeof beginBuildSchema>

const stepSchema = requestBody({
  type: z.enum(buildStepTypes),
  args: z.array(line).max(templateBuildLimits.args).nullish(),
  filesHash: filesHashSchema.nullish(),
  force: z.boolean().nullish(),
  // Of the client's own side of an upload.
  forceUpload: z.unknown().optional(),
  resolveSymlinks: z.unknown().optional(),
  gzip: z.unknown().optional(),
})

/** How the client's `fromImage`, `fromAWSRegistry` and `fromGCPRegistry` say who asks. */
const registrySchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('registry'), username: secretLine, password: secretLine }),
  z.object({ type: z.literal('gcp'), serviceAccountJson: secretLine }),
  z.object({ type: z.literal('aws') }),
])

/** Body of `POST /v2/templates/{id}/builds/{build}`. */
export const startBuildSchema = requestBody({
  fromImage: optionalLine,
  fromTemplate: optionalLine,
  fromImageRegistry: registrySchema.nullish(),
  force: z.boolean().nullish(),
  steps: z.array(stepSchema).max(templateBuildLimits.steps).nullish(),
  startCmd: optionalLine,
  readyCmd: optionalLine,
})
type StartBuildInput = z.output<typeof startBuildSchema>

/** The template that a client wants to build. @throws AppError `invalid_request`, `not_supported` */
export function toNewBuild(body: BeginBuildInput) {
  refuseUnsupported(body, ['minFreeDiskMb'])
  const named = body.name ?? body.alias
  if (named === undefined) throw new AppError('invalid_request', 'name: a template needs one.')
  const { name, tag } = named
  // A tag in the name counts like one in the list; the name alone says none.
  const said = body.tags ?? []
  const tags = [...new Set(tag === DEFAULT_TAG && said.length > 0 ? said : [tag, ...said])]
  return { name, tags, vcpus: body.cpuCount ?? undefined, memoryMib: body.memoryMB ?? undefined }
}

/**
 * What a client wants built.
 * @param isBuiltIn Whether a name is that of a built-in template.
 * @throws AppError `invalid_request` for an image that there is not, and steps that make no sense; `template_not_found`
 */
export async function toPlan(
  body: StartBuildInput,
  isBuiltIn: (name: string) => Promise<boolean>,
): Promise<SubmittedPlan> {
  const steps = (body.steps ?? []).map(({ type, args, filesHash, force }, index) => {
    const step = { type, args: args ?? [], filesHash: filesHash ?? undefined, force: force === true }
    const problem = problemOf(step)
    if (problem !== undefined) throw new AppError('invalid_request', `steps.${index}: ${type} ${problem}.`)
    return step
  })
  const { startCmd, readyCmd } = body
  const origin = await originOf(body, isBuiltIn)
  return { ...origin, steps, startCmd, readyCmd, force: body.force === true }
}

/**
 * Who asks the registry of the image.
 * @throws AppError `not_supported` for Amazon's, whose logins are for hours and asked of a service of theirs
 */
function loginOf({ fromImageRegistry: registry }: StartBuildInput): RegistryLogin | undefined {
  switch (registry?.type) {
    case undefined:
      return undefined
    case 'registry':
      return { username: registry.username, password: registry.password }
    case 'gcp':
      return { username: '_json_key', password: registry.serviceAccountJson }
    case 'aws':
      throw new AppError(
        'not_supported',
        'fromImageRegistry: logins of AWS are not made here; `aws ecr get-login-password` gives one for the user AWS.',
      )
  }
}

async function originOf(
  body: StartBuildInput,
  isBuiltIn: (name: string) => Promise<boolean>,
): Promise<Pick<SubmittedPlan, 'from' | 'images'>> {
  const { fromImage, fromTemplate } = body
  const login = loginOf(body)
  if ((fromImage === undefined) === (fromTemplate === undefined)) {
    throw new AppError('invalid_request', 'A build begins with fromImage or with fromTemplate, one of the two.')
  }
  if (fromTemplate !== undefined) return { from: templateNameOf(fromTemplate) }
  const image = fromImage ?? ''
  if (login === undefined) {
    if (CLIENTS_BASE.test(image)) return { from: BASE }
    if (await isBuiltIn(image)) return { from: image }
  }
  const parsed = parseImageReference(image)
  if (parsed !== undefined) {
    const reference = formatImageReference(parsed)
    return { from: reference, images: { [reference]: { reference, adopts: 'env', login } } }
  }
  throw new AppError(
    'invalid_request',
    `fromImage: "${image.slice(0, 200)}" is no image reference: [registry[:port]/]name[:tag][@sha256:…].`,
  )
}

/** What is wrong with a step, whatever it begins with. */
function problemOf({ type, args, filesHash }: BuildStep): string | undefined {
  const [first = '', second = '', , mode = ''] = args
  switch (type) {
    case 'RUN':
      return first.trim() === '' || args.length > 2 ? 'needs a command, and at most a user' : undefined
    case 'COPY':
      if (first === '' || second === '' || args.length > 4) return 'needs a source and a destination'
      if (filesHash === undefined) return 'needs the hash of its files'
      if (first.startsWith('/') || first.split('/').includes('..')) return 'needs a source in the folder of the build'
      return /^(?:[0-7]{3,4})?$/.test(mode) ? undefined : 'has a mode that is none, such as 0644'
    case 'ENV':
      return args.length < 2 ||
        args.length % 2 !== 0 ||
        args.some((name, at) => at % 2 === 0 && !/^[^=]{1,256}$/.test(name))
        ? 'needs names without = and their values'
        : undefined
    case 'WORKDIR':
      return first === '' || first.length > 4096 || args.length > 1 ? 'needs a path' : undefined
    case 'USER':
      return first === '' || first.length > 64 || args.length > 1 ? 'needs a user' : undefined
  }
}
