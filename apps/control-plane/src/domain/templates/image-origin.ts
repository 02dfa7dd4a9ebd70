import { posix } from 'node:path'
import { AppError } from '@wrenn/base'
import {
  capsuleDefaults,
  capsuleEnvsSchema,
  environmentBytes,
  formatImageReference,
  MAX_CAPSULE_ENVIRONMENT_BYTES,
  parseImageReference,
  pathSchema,
  shellLine,
  templateBuildLimits,
  text,
  userSchema,
} from '@wrenn/protocol'
import type { ArchivedTemplate, FetchedImage } from '@wrenn/protocol/host'
import { z } from 'zod'
import { unlessOlderHost } from '../../host/errors.js'
import type { HostCalls } from '../../host/host.js'
import type { BuildImage, ProcessDefaults, TemplateBuildRow } from '../../store/schema.js'
import type { Keyring } from '../secrets/index.js'
import type { BuildFiles } from './build-files.js'
import { makeFolder, userOf } from './dockerfile-steps.js'
import type { BuildGuest } from './guest.js'
import { type ImageFile, importImage } from './image-file.js'
import { FIRST_STATE, type ResolvedOrigin } from './origin.js'
import type { RegistryLogin, RegistryLogins } from './registry-logins.js'

/** A container's, where its image does not say. */
const CONTAINER_STATE: ProcessDefaults = { user: 'root', cwd: '/', envs: {} }

/** Written by hosts, and by whoever can write such a file. */
const setupSchema = z.object({
  user: userSchema.or(z.literal('')),
  cwd: pathSchema.or(z.literal('')),
  envs: capsuleEnvsSchema,
  startCommand: text(templateBuildLimits.lineLength),
  readyCommand: text(templateBuildLimits.lineLength),
})

/** More than any image has; the time that they take is the platform's. */
const MAX_VARIABLES = 1_000
/** By name, of those that are left out. */
const MAX_TOLD = 10

/** An image as who asks for a build names it, with the login that its registry gets. */
export interface AskedImage extends Omit<BuildImage, 'login'> {
  readonly login?: RegistryLogin | undefined
}

/**
 * What a Dockerfile begins with that is no template of ours.
 * @param from as the Dockerfile has it; absent: only templates count
 * @throws AppError `template_not_found` for what cannot be an image either
 */
export async function imageUnlessTemplate(
  find: () => Promise<ResolvedOrigin>,
  from: string | undefined,
): Promise<AskedImage | undefined> {
  try {
    await find()
    return undefined
  } catch (error) {
    const parsed = from === undefined ? undefined : parseImageReference(from)
    if (!AppError.is(error, 'template_not_found') || parsed === undefined) throw error
    return { reference: formatImageReference(parsed), adopts: 'all' }
  }
}

interface ImageDeps {
  readonly host: HostCalls
  readonly keyring: Keyring
  readonly files: Pick<BuildFiles, 'digest' | 'open'>
  readonly logins: Pick<RegistryLogins, 'of'>
  readonly diskSizeMib: number
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** Keeps a login for one image of one build; for another it does not open. @throws AppError `not_supported` without a key */
export function sealedImage(keyring: Keyring, buildId: string, { login, ...image }: AskedImage): BuildImage {
  if (login === undefined) return image
  return { ...image, login: keyring.seal(JSON.stringify(login), contextOf(buildId, image.reference)) }
}

function contextOf(buildId: string, reference: string): string {
  return `template build ${buildId} registry of ${reference}`
}

/**
 * Has the host fetch the image that a build begins with; its registry is asked each time, for who may read it and what it is now. Of a file it takes
 * what the team has uploaded.
 * @throws AppError `image_not_found`, `registry_refused`, `registry_unavailable`, `image_not_usable`, `disk_full`, `host_unavailable`,
 * `not_supported` by the host
 */
export async function imageOrigin(
  deps: ImageDeps,
  build: TemplateBuildRow,
  wanted: BuildImage,
): Promise<ResolvedOrigin> {
  const { vcpus, memory_mib: memoryMib } = build
  const { reference, adopts } = wanted
  const image = await imageOf(deps, build, wanted)
  const { archived } = image
  if (archived !== undefined) return archivedOrigin(deps, build, { ...image, archived }, reference)
  const { envs, notes } = envsOf(image.env)
  for (const note of notes) deps.onProgress(note)
  const state = adopts === 'env' ? FIRST_STATE : stateOf(image, reference, deps.onProgress)
  return {
    ...state,
    envs,
    template: image.template,
    identity: `image ${image.digest} ${adopts}`,
    vcpus: vcpus ?? capsuleDefaults.vcpus,
    memoryMib: memoryMib ?? capsuleDefaults.memoryMib,
    diskSizeMib: deps.diskSizeMib,
    isFetched: true,
  }
}

/**
 * As whom and where steps begin in an image, as commands are told it. The directory is made where it is not there, as container
 * runtimes do.
 * @param from the image, as errors call it
 * @throws AppError `build_failed` where the image does not have whom it names
 */
export async function beginAsImageSays(
  guest: Pick<BuildGuest, 'answer'>,
  { user: wanted, cwd, envs }: ProcessDefaults,
  from: string,
): Promise<ProcessDefaults> {
  const user = await userOf(guest, wanted, from)
  await makeFolder(guest, cwd)
  return { user, cwd, envs }
}

interface ArchivedImage extends FetchedImage {
  readonly archived: ArchivedTemplate
}

/** A template goes on as it was exported: as who, where, with what and how large; its memory alone is made anew. */
function archivedOrigin(
  { onProgress }: ImageDeps,
  { vcpus, memory_mib: memoryMib }: TemplateBuildRow,
  { archived, template, digest }: ArchivedImage,
  reference: string,
): ResolvedOrigin {
  const { setup, diskSizeMib, synced } = archived
  const { user = '', cwd = '', envs = {}, startCommand = '', readyCommand = '' } = setup ?? {}
  const parsed = setupSchema.safeParse({ user, cwd, envs, startCommand, readyCommand })
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw new AppError(
      'image_not_usable',
      `${reference}: its ${issue?.path.join('.')} is not usable: ${issue?.message}`,
    )
  }
  if (!synced) onProgress('What its programs had not written out when it was made may be missing.')
  const said = {
    ...(user === '' ? {} : { user }),
    ...(cwd === '' ? {} : { cwd }),
    ...(startCommand === '' ? {} : { startCmd: startCommand }),
    ...(readyCommand === '' ? {} : { readyCmd: readyCommand }),
  }
  return {
    ...FIRST_STATE,
    ...said,
    ...{ envs, template, diskSizeMib },
    identity: `template ${digest}`,
    vcpus: vcpus ?? archived.vcpus,
    memoryMib: memoryMib ?? archived.memoryMib,
    isFetched: true,
  }
}

async function imageOf(
  deps: ImageDeps,
  { id, team_id: teamId }: TemplateBuildRow,
  { reference, file, login }: BuildImage,
): Promise<FetchedImage> {
  if (file !== undefined) {
    const wanted: ImageFile = { ...file, teamId, called: reference }
    return await importImage(deps, wanted)
  }
  const { keyring, logins } = deps
  const opened =
    login === undefined
      ? await logins.of(teamId, reference)
      : JSON.parse(keyring.open(login, contextOf(id, reference)).text)
  return await fetchImage(deps, { reference, ...(opened === undefined ? {} : { login: opened }) })
}

async function fetchImage(
  { host, signal, onProgress }: ImageDeps,
  request: { readonly reference: string; readonly login?: RegistryLogin },
): Promise<FetchedImage> {
  return await host.call(async (client) => {
    try {
      for await (const { event } of client.fetchImage(request, { signal })) {
        if (event.case === 'image') return event.value
        if (event.case === 'progress') onProgress(event.value)
      }
    } catch (error) {
      throw unlessOlderHost(error, 'fetches no images of registries')
    }
    throw new AppError('host_unavailable', 'The host broke off the fetch of the image.')
  })
}

/** Only what the image says. @throws AppError `image_not_usable` */
function said({ user, workingDir }: FetchedImage, reference: string): Partial<ProcessDefaults> {
  const cwd = posix.resolve('/', workingDir)
  return {
    ...(user === '' ? {} : { user: usable(userSchema, user, `${reference}: its user`) }),
    ...(workingDir === '' ? {} : { cwd: usable(pathSchema, cwd, `${reference}: its working directory`) }),
  }
}

/** As whom, where and what a container of it would run. */
function stateOf(image: FetchedImage, reference: string, say: (sentence: string) => void) {
  return { ...CONTAINER_STATE, ...said(image, reference), ...containerOf(image, say), isAsImageSays: true }
}

/** What a container of it would run, where that can be run here. */
function containerOf({ entrypoint, command, ports }: FetchedImage, say: (sentence: string) => void) {
  const argv = [...entrypoint, ...command]
  if (argv.length === 0) return {}
  if (text(templateBuildLimits.lineLength).safeParse(shellLine(argv)).success)
    return { container: { entrypoint, command, ports } }
  say("The image's entry point and command are left out: they cannot be those of a template.")
  return {}
}

function usable(schema: typeof userSchema, value: string, what: string): string {
  const { data, error } = schema.safeParse(value)
  if (error === undefined) return data
  throw new AppError('image_not_usable', `${what} is not usable: ${error.issues[0]?.message ?? 'it is not valid'}.`)
}

/**
 * The image's variables. What cannot be one of a capsule's is left out, and so is what is too much.
 * @returns also what to say of that: a few sentences for people, however many are left out
 */
export function envsOf(lines: readonly string[]) {
  const envs = new Map<string, string>()
  const leftOut: string[] = []
  let total = 0
  for (const line of lines.slice(0, MAX_VARIABLES)) {
    const equals = line.indexOf('=')
    const name = equals === -1 ? line : line.slice(0, equals)
    const value = line.slice(equals + 1)
    const before = envs.get(name)
    const size = sizeOf(name, value) - (before === undefined ? 0 : sizeOf(name, before))
    const fits = total + size <= MAX_CAPSULE_ENVIRONMENT_BYTES
    if (equals > 0 && fits && capsuleEnvsSchema.safeParse({ [name]: value }).success) {
      envs.set(name, value)
      total += size
    } else leftOut.push(name)
  }
  return { envs: Object.fromEntries(envs), notes: notesOf(leftOut, Math.max(0, lines.length - MAX_VARIABLES)) }
}

function sizeOf(name: string, value: string): number {
  return environmentBytes({ [name]: value })
}

function notesOf(names: readonly string[], untold: number): readonly string[] {
  const notes = names
    .slice(0, MAX_TOLD)
    .map((name) => name.slice(0, 100) || 'without a name')
    .map((name) => `The image's variable ${name} is left out: it cannot be one of a template.`)
  const more = names.length - notes.length + untold
  return more === 0 ? notes : [...notes, `${more} more of the image's variables are left out.`]
}
