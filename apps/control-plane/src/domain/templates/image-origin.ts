import { AppError } from '@wrenn/base'
import { capsuleDefaults, capsuleEnvsSchema, formatImageReference, parseImageReference } from '@wrenn/protocol'
import type { FetchedImage } from '@wrenn/protocol/host'
import type { Host } from '../../host/host.js'
import type { BuildImage, ProcessDefaults, TemplateBuildRow } from '../../store/schema.js'
import type { Keyring } from '../secrets/index.js'
import { FIRST_STATE, type ResolvedOrigin } from './origin.js'

/** A container's, where its image does not say. */
const CONTAINER_STATE: ProcessDefaults = { user: 'root', cwd: '/', envs: {} }

/** Who asks a registry. */
export interface RegistryLogin {
  readonly username: string
  readonly password: string
}

/**
 * What a Dockerfile begins with that is no template of ours.
 * @param from as the Dockerfile has it; absent: only templates count
 * @throws AppError `template_not_found` for what cannot be an image either
 */
export async function imageUnlessTemplate(
  find: () => Promise<ResolvedOrigin>,
  from: string | undefined,
): Promise<BuildImage | undefined> {
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
  readonly host: Host
  readonly keyring: Keyring
  readonly diskSizeMib: number
  readonly signal: AbortSignal
  /** A sentence for people. */
  readonly onProgress: (sentence: string) => void
}

/** Keeps a login for one build; in the plan of another it does not open. */
export function sealLogin(keyring: Keyring, buildId: string, login: RegistryLogin): string {
  return keyring.seal(JSON.stringify(login), contextOf(buildId))
}

function contextOf(buildId: string): string {
  return `template build ${buildId} registry`
}

/**
 * Has the host fetch the image that a build begins with; the registry is asked each time, for who may read it and what it is now.
 * @throws AppError `image_not_found`, `registry_refused`, `registry_unavailable`, `image_not_usable`, `disk_full`, `host_unavailable`
 */
export async function imageOrigin(
  deps: ImageDeps,
  { id, vcpus, memory_mib: memoryMib }: TemplateBuildRow,
  { reference, login, adopts }: BuildImage,
): Promise<ResolvedOrigin> {
  const { keyring, diskSizeMib } = deps
  const opened = login === undefined ? undefined : JSON.parse(keyring.open(login, contextOf(id)).text)
  const image = await fetchImage(deps, { reference, ...(opened === undefined ? {} : { login: opened }) })
  const { envs, notes } = envsOf(image.env)
  for (const note of notes) deps.onProgress(note)
  const state = adopts === 'env' ? FIRST_STATE : { ...CONTAINER_STATE, ...said(image) }
  return {
    user: state.user,
    cwd: state.cwd,
    envs,
    template: image.template,
    identity: `image ${image.digest} ${adopts}`,
    vcpus: vcpus ?? capsuleDefaults.vcpus,
    memoryMib: memoryMib ?? capsuleDefaults.memoryMib,
    diskSizeMib,
    isFetched: true,
    command: [...image.entrypoint, ...image.cmd],
  }
}

async function fetchImage(
  { host, signal, onProgress }: ImageDeps,
  request: { readonly reference: string; readonly login?: RegistryLogin },
): Promise<FetchedImage> {
  return await host.call(async (client) => {
    for await (const { event } of client.fetchImage(request, { signal })) {
      if (event.case === 'image') return event.value
      if (event.case === 'progress') onProgress(event.value)
    }
    throw new AppError('host_unavailable', 'The host broke off the fetch of the image.')
  })
}

/** Only what the image says. */
function said({ user, workingDir }: FetchedImage): Partial<ProcessDefaults> {
  return { ...(user === '' ? {} : { user }), ...(workingDir === '' ? {} : { cwd: workingDir }) }
}

/** The image's variables; what cannot be one of a capsule's is left out, and said. */
function envsOf(lines: readonly string[]) {
  const notes: string[] = []
  const envs: Record<string, string> = {}
  for (const line of lines) {
    const equals = line.indexOf('=')
    const [name, value] = [line.slice(0, equals), line.slice(equals + 1)]
    if (equals > 0 && capsuleEnvsSchema.safeParse({ ...envs, [name]: value }).success) envs[name] = value
    else notes.push(`The image's variable ${name.slice(0, 100)} is left out: it cannot be one of a template.`)
  }
  return { envs, notes }
}
