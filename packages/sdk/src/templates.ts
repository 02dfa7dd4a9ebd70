import type * as wire from '@wrenn/protocol'
import { date, templateInfo } from './convert.js'
import { createError, TemplateNotFoundError, WrennError } from './errors.js'
import { imageFileRecipe, type Recipe, type RecipeStep, type RecipeUpload } from './recipe.js'
import type { CallOptions, Transport } from './transport.js'
import type { TemplateInfo } from './types.js'
import { WatchedBody } from './watched-body.js'

const FOLLOW_SEC = 20
/** Beyond what the server waits. */
const SPARE_MS = 30_000
/** Of several uploads. */
const AT_ONCE = 3
const PAGE_SIZE = 50
/** As many as a list has; more builds of one template than these are not under way. */
const MAX_LISTED = 200

/** Which templates are listed. */
export interface ListTemplatesOptions extends CallOptions {
  /** `base`: what is built in; `snapshot`: what the team has built or made of capsules. @default both */
  readonly type?: TemplateInfo['type']
}

/** Where a build is: `draft` until it is started. */
export type BuildState = wire.BuildState

/** A build of a template. */
export interface BuildInfo {
  readonly id: string
  /** Of the template. */
  readonly name: string
  readonly tags: readonly string[]
  readonly state: BuildState
  /** Why it ended without a template, at which step, and in which line of the Dockerfile that is. */
  readonly reason:
    | { readonly message: string; readonly step?: string | undefined; readonly line?: number | undefined }
    | undefined
  /** Who began it; the name of a person whose account is gone is empty. */
  readonly by: { readonly type: 'key' | 'user'; readonly id: string; readonly name: string } | undefined
  /** Of all stages; `undefined` until it is started. */
  readonly steps: number | undefined
  /** Taken from what earlier builds have kept, or not needed because of that; `undefined` until it is known. */
  readonly cachedSteps: number | undefined
  /** How many its log has by now. */
  readonly logLines: number
  readonly createdAt: Date
  readonly endedAt: Date | undefined
}

/** One line of a build's log. */
export interface BuildLine {
  readonly at: Date
  /** `info`, `warn` or `error`; what a command prints to stderr is `warn`. */
  readonly level: string
  /** `base`, the number of a step, or `finalize`. */
  readonly step: string
  readonly message: string
}

/** How a build is begun. */
export interface StartBuildOptions extends CallOptions {
  /** What the build is called beside the template's name. @default none: the name stands for it */
  readonly tags?: readonly string[]
  /** @default those of what it begins with */
  readonly vcpus?: number
  /** @default that of what it begins with */
  readonly memoryMib?: number
  /** Only a host that has all of these tags builds it, and so runs what is made of it. @default any */
  readonly hostTags?: readonly string[]
  /** Takes nothing from what earlier builds have kept. @default false */
  readonly noCache?: boolean
  /** By their ids; they are in no log, cache or template. */
  readonly secrets?: Readonly<Record<string, string>>
  /** Told of the build as soon as there is one: from here on it can be cancelled. */
  readonly onBegin?: (build: BuildInfo) => void
}

/** How a build is begun and followed. */
export interface BuildTemplateOptions extends StartBuildOptions {
  /** Told each line of the log. */
  readonly onLine?: (line: BuildLine) => void
}

/** How a template is deleted. */
export interface DeleteTemplateOptions extends CallOptions {
  /**
   * Also cancels its builds that are under way, and is content with them where the template itself is not there yet.
   * @default false
   */
  readonly cancelBuilds?: boolean
}

/** Which builds are listed. */
export interface ListBuildsOptions extends CallOptions {
  /** Of this template. @default all */
  readonly name?: string
  /** `open`: those that have not ended. @default all */
  readonly state?: BuildState | 'open'
  /** Only those that were begun before the build of this id. @default all */
  readonly before?: string
  /** 1 to 200. @default 50 */
  readonly limit?: number
}

/** What capsules start from: base images, snapshots of capsules, and what builds make. */
export class Templates {
  readonly #transport: Transport

  constructor(transport: Transport) {
    this.#transport = transport
  }

  /** Those that are built in, and those that the team has built or made of capsules. */
  async list(options: ListTemplatesOptions = {}): Promise<TemplateInfo[]> {
    const { type, ...call } = options
    const found = await this.#transport.json<wire.Template[]>('GET', '/v1/snapshots', { ...call, query: { type } })
    return found.map(templateInfo)
  }

  /**
   * Deletes a template of the team; capsules that were started from it go on.
   * @throws TemplateNotFoundError; WrennError `forbidden` for a built-in template, `in_use` while something needs it.
   */
  async delete(name: string, options: DeleteTemplateOptions = {}): Promise<void> {
    const { cancelBuilds = false, ...call } = options
    const builds = cancelBuilds ? await this.listBuilds({ ...call, name, limit: MAX_LISTED }) : []
    const open = builds.filter(({ endedAt }) => endedAt === undefined)
    for (const { id } of open) await this.cancelBuild(id, call)
    try {
      await this.#transport.send('DELETE', `/v1/snapshots/${encodeURIComponent(name)}`, call)
    } catch (error) {
      if (!(error instanceof TemplateNotFoundError) || open.length === 0) throw error
    }
  }

  /**
   * A template of the team as an archive that another platform can import: its disk and the image below it, user, directory, variables, start and ready
   * command; not its memory, which is made anew by the import. An archive is whole when {@link readTemplateTail}'s digest is that of what is before it.
   * @throws TemplateNotFoundError; WrennError `forbidden` for a built-in one; the stream: `connection_lost`
   * @example
   * await pipeline(await wrenn.templates.export('web'), createWriteStream('web.wrenn'))
   */
  async export(name: string, options: CallOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { body } = await this.#transport.request('GET', archivePathOf(name), options)
    return body ?? new ReadableStream({ start: (controller) => controller.close() })
  }

  /**
   * Where a browser saves an archive from by itself, as large as it may be: for links of pages whose session is in cookies, and for a few minutes.
   * Elsewhere it takes the key, as each call does.
   * @throws WrennError `unauthorized` when there is no session any more
   * @example
   * location.assign(await wrenn.templates.exportUrl('web'))
   */
  async exportUrl(name: string): Promise<string> {
    await this.#transport.page?.makeFresh()
    return this.#transport.url(archivePathOf(name))
  }

  /**
   * Builds a template of an archive that `export` has given, as `build` does: it boots from its disk, its start command is run and its ready command
   * waited for.
   * @param hash SHA-256 of the whole file, in hexadecimal digits
   * @example
   * const file = { hash: sha256, open: () => Readable.toWeb(createReadStream('web.wrenn')) }
   * await wrenn.templates.import('web', file, { onLine: ({ message }) => console.log(message) })
   */
  async import(name: string, file: RecipeUpload, options: BuildTemplateOptions = {}): Promise<BuildInfo> {
    return await this.build(name, imageFileRecipe(file, { called: 'archive' }), options)
  }

  /**
   * Builds a template and waits until it is ready. A `signal` that ends cancels the build.
   * @throws WrennError `build_failed` with the step, and those of `startBuild`; `signal`'s reason
   * @example
   * import { readDockerfile } from '@wrenn/sdk/dockerfile'
   * const recipe = await readDockerfile('FROM base\nRUN apt-get update && apt-get install -y jq')
   * await wrenn.templates.build('with-jq', recipe, { onLine: ({ message }) => console.log(message) })
   */
  async build(name: string, recipe: Recipe, options: BuildTemplateOptions = {}): Promise<BuildInfo> {
    const { onLine, ...begin } = options
    const call = callOf(options)
    const { id } = await this.startBuild(name, recipe, begin)
    try {
      for await (const line of this.followBuild(id, call)) onLine?.(line)
      const build = await this.getBuild(id, call)
      if (build.state === 'ready') return build
      const { message = 'The build has ended without a template.', step } = build.reason ?? {}
      throw createError(message, { code: 'build_failed', details: { buildId: id, step, state: build.state } })
    } catch (error) {
      // What nobody waits for any more is not to run on.
      if (options.signal?.aborted) await this.#giveUp(id)
      throw error
    }
  }

  /**
   * Begins a build, uploads its files and lets it go.
   * @throws WrennError `invalid_request`, `template_name_taken`, `limit_exceeded`, `too_large`; TemplateNotFoundError
   * for what it begins with; whatever packing its files fails with
   * @example
   * const { id } = await wrenn.templates.startBuild('with-jq', recipe, { tags: ['v2'] })
   * for await (const { message } of wrenn.templates.followBuild(id)) console.log(message)
   */
  async startBuild(name: string, recipe: Recipe, options: StartBuildOptions = {}): Promise<BuildInfo> {
    const { tags, vcpus, memoryMib, hostTags, noCache, secrets, onBegin } = options
    const call = callOf(options)
    const begin = { name, tags, vcpus, memory_mb: memoryMib }
    const begun = await this.#transport.json<wire.TemplateBuild>('POST', '/v1/templates/builds', {
      ...call,
      json: begin,
    })
    onBegin?.(buildInfo(begun))
    try {
      const waiting = [...recipe.uploads]
      const lane = async (): Promise<void> => {
        for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
          await this.#upload(begun.id, next, call)
        }
      }
      await Promise.all(Array.from({ length: AT_ONCE }, lane))
      const json = {
        stages: recipe.stages.map(({ from, steps }) => ({ from, steps: steps.map(wireStep) })),
        image_files: wireImageFiles(recipe),
        ...{
          start_command: recipe.startCommand,
          entrypoint: recipe.entrypoint,
          command: recipe.command,
          ports: recipe.ports,
        },
        ...{ ready_command: recipe.readyCommand, no_cache: noCache, secrets, host_tags: hostTags },
      }
      return buildInfo(
        await this.#transport.json<wire.TemplateBuild>('POST', `${pathOf(begun.id)}/start`, { ...call, json }),
      )
    } catch (error) {
      // It would wait for its start, and count.
      await this.#giveUp(begun.id)
      throw error
    }
  }

  /**
   * The log of a build from a line on, until it has ended.
   * @throws WrennError `build_not_found`
   * @example
   * for await (const { step, message } of wrenn.templates.followBuild(id)) console.log(step, message)
   */
  async *followBuild(
    id: string,
    options: CallOptions & { readonly from?: number } = {},
  ): AsyncGenerator<BuildLine, void> {
    const { from: first = 0, ...call } = options
    let from = first
    for (;;) {
      const query = { from, wait_sec: FOLLOW_SEC }
      const requestTimeoutMs = FOLLOW_SEC * 1000 + SPARE_MS
      const path = `${pathOf(id)}/log`
      const page = await this.#transport.json<wire.TemplateBuildLog>('GET', path, { ...call, query, requestTimeoutMs })
      for (const { at, ...line } of page.lines) yield { at: new Date(at), ...line }
      from = page.next
      if (page.lines.length === 0 && page.build.ended_at !== undefined) return
    }
  }

  /** @throws WrennError `build_not_found` */
  async getBuild(id: string, options: CallOptions = {}): Promise<BuildInfo> {
    return buildInfo(await this.#transport.json<wire.TemplateBuild>('GET', pathOf(id), options))
  }

  /**
   * The newest ones first.
   * @example
   * const [newest] = await wrenn.templates.listBuilds({ name: 'with-jq', limit: 1 })
   */
  async listBuilds(options: ListBuildsOptions = {}): Promise<BuildInfo[]> {
    const { name, state, before, limit, ...call } = options
    const query = { name, state, before, limit }
    const found = await this.#transport.json<wire.TemplateBuild[]>('GET', '/v1/templates/builds', { ...call, query })
    return found.map(buildInfo)
  }

  /**
   * All that the platform still knows of, the newest ones first, page after page as they are asked for.
   * @example
   * for await (const { id, reason } of wrenn.templates.builds({ state: 'error' })) console.log(id, reason?.message)
   */
  async *builds(options: Omit<ListBuildsOptions, 'limit'> = {}): AsyncGenerator<BuildInfo, void> {
    let page = options
    for (;;) {
      const found = await this.listBuilds({ ...page, limit: PAGE_SIZE })
      yield* found
      const last = found.at(-1)
      if (last === undefined || found.length < PAGE_SIZE) return
      page = { ...options, before: last.id }
    }
  }

  /**
   * Ends a build; a template of its name stays as it is, and so does a build that has ended.
   * @throws WrennError `build_not_found`
   * @example
   * await wrenn.templates.cancelBuild(id)
   */
  async cancelBuild(id: string, options: CallOptions = {}): Promise<BuildInfo> {
    const cancel = { ...options, idempotent: true }
    return buildInfo(await this.#transport.json<wire.TemplateBuild>('POST', `${pathOf(id)}/cancel`, cancel))
  }

  /** Cancels what has failed here already. */
  async #giveUp(id: string): Promise<void> {
    try {
      await this.cancelBuild(id)
    } catch (error) {
      // Whatever its code: the caller is to see what came first, and the platform itself ends builds that are late.
      if (!(error instanceof WrennError)) throw error
    }
  }

  async #upload(id: string, upload: RecipeUpload, call: CallOptions): Promise<void> {
    const path = `${pathOf(id)}/files/${upload.hash}`
    const { present, upload_url: url } = await this.#transport.json<wire.TemplateBuildFiles>('GET', path, call)
    if (present) return
    // Where the API is asked, whatever the server thinks that it is called.
    const { pathname, search } = new URL(url)
    const target = pathname + search
    const options = { ...call, requestTimeoutMs: 0 }
    const source = upload.open()
    if (source instanceof Blob) {
      await this.#transport.send('PUT', target, { ...options, body: source })
      return
    }
    const body = new WatchedBody(source)
    try {
      await this.#transport.send('PUT', target, { ...options, body: body.stream, idempotent: false })
    } catch (error) {
      throw body.reasonOf(error)
    }
  }
}

function callOf({ signal, requestTimeoutMs }: CallOptions): CallOptions {
  return { ...(signal && { signal }), ...(requestTimeoutMs === undefined ? {} : { requestTimeoutMs }) }
}

function pathOf(id: string): string {
  return `/v1/templates/builds/${encodeURIComponent(id)}`
}

function archivePathOf(name: string): string {
  return `/v1/snapshots/${encodeURIComponent(name)}/archive`
}

function wireStep({ filesHash, ...step }: RecipeStep): object {
  return { ...step, ...(filesHash === undefined ? {} : { files_hash: filesHash }) }
}

function wireImageFiles({ imageFiles }: Recipe): object | undefined {
  if (imageFiles === undefined) return undefined
  const files = Object.entries(imageFiles).map(([from, { hash, ...file }]) => [from, { files_hash: hash, ...file }])
  return Object.fromEntries(files)
}

function buildInfo(build: wire.TemplateBuild): BuildInfo {
  const { id, name, tags, state, reason, by, steps } = build
  return {
    ...{ id, name, tags, state, reason, by, steps },
    cachedSteps: build.cached_steps,
    logLines: build.log_lines,
    createdAt: new Date(build.created_at),
    endedAt: date(build.ended_at),
  }
}
