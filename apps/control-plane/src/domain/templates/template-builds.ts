import type { Readable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { AppError, buildIds } from '@wrenn/base'
import type { ListTemplateBuildsQuery } from '@wrenn/protocol'
import type { BuildLimits, Limits } from '../../config.js'
import type { Hosts } from '../../host/hosts.js'
import { writeAudit } from '../../store/audit.js'
import type { Db } from '../../store/database.js'
import type {
  Actor,
  BuildImage,
  BuildPlan,
  StepTrace,
  TemplateBuildInfo,
  TemplateBuildLogRow,
} from '../../store/schema.js'
import { findSnapshotByName } from '../../store/snapshots.js'
import {
  cancelBuild,
  cancelBuilds,
  countOpenBuilds,
  findBuild,
  findOpenBuild,
  insertBuild,
  listBuilds,
  planBuild,
} from '../../store/template-builds.js'
import { listBuildLog } from '../../store/template-logs.js'
import { lockTeam } from '../../store/usage.js'
import type { Principal } from '../accounts/index.js'
import { checkLimits } from '../limits/index.js'
import type { Snapshots } from '../points/index.js'
import type { Keyring } from '../secrets/index.js'
import { type BuildFiles, UPLOAD_SPARE_MS } from './build-files.js'
import { traceOf } from './cache-reasons.js'
import { type AskedImage, imageUnlessTemplate, sealedImage } from './image-origin.js'
import { originOf } from './origin.js'
import { sealSecrets } from './secrets.js'
import { allStages } from './stages.js'
import { nameTaken } from './template-tags.js'
import type { UploadLinks, UploadTicket } from './upload-links.js'

const CANCELLED = 'The build was cancelled.'
const FOLLOW_EVERY_MS = 200

interface TemplateBuildsDeps {
  readonly db: Db
  readonly host: Hosts
  readonly snapshots: Snapshots
  readonly files: BuildFiles
  readonly links: UploadLinks
  readonly keyring: Keyring
  readonly limits: Limits
  readonly buildLimits: BuildLimits
  /** A build waits to be carried out now. */
  readonly onPlanned: () => void
}

/** A template that is to be built. */
export interface NewBuild {
  readonly name: string
  /** What the build is to be called; none: `default`. */
  readonly tags: string[]
  /** @default that of what it is built from */
  readonly vcpus: number | undefined
  /** @default that of what it is built from */
  readonly memoryMib: number | undefined
}

/** One build of a template, as its client calls it. */
export interface BuildRef {
  readonly teamId: string
  /** Of the template, where the client says it. */
  readonly name?: string
  readonly id: string
}

/** What a build is to be made of, as its client says it. */
export interface SubmittedPlan extends Omit<BuildPlan, 'secrets' | 'images'> {
  /** What it, or stages, begin with that are images, by `from`; logins are kept encrypted until the build ends. */
  readonly images?: Readonly<Record<string, AskedImage>> | undefined
  /** By their ids; nobody sees them again. */
  readonly secretValues?: Readonly<Record<string, string>>
  /** Of each step in the order of all: the files that it copies. */
  readonly files?: readonly StepTrace['files'][]
}

interface BuildStatus {
  readonly build: TemplateBuildInfo
  readonly lines: readonly TemplateBuildLogRow[]
}

interface UploadLink {
  /** Files of that hash are here already. */
  readonly isPresent: boolean
  readonly ticket: UploadTicket
}

/** Templates made by steps; every call is about one team. The steps run elsewhere, also when nobody asks how far they are. */
export class TemplateBuilds {
  readonly #deps: TemplateBuildsDeps

  constructor(deps: TemplateBuildsDeps) {
    this.#deps = deps
  }

  /**
   * Begins a build; what it is made of is said by `submit`. A template of that name stays as it is until the build is ready.
   * @throws AppError `invalid_request`, `name_reserved`, `template_name_taken` for a snapshot that no build has made, `limit_exceeded`
   */
  async begin(teamId: string, { name, tags, vcpus, memoryMib }: NewBuild, actor: Actor): Promise<TemplateBuildInfo> {
    const { db, host, limits, buildLimits } = this.#deps
    checkLimits({ vcpus, memory_mb: memoryMib, labels: {}, envs: {} }, limits)
    if ((await host.findTemplate(name)) !== undefined) {
      throw new AppError('name_reserved', `${name} is the name of a built-in template.`)
    }
    const before = await findSnapshotByName(db, teamId, name)
    if (before !== undefined && before.build_id === null) throw nameTaken(name)
    return await db.transaction().execute(async (tx) => {
      await lockTeam(tx, teamId)
      if ((await countOpenBuilds(tx, teamId)) >= buildLimits.maxOpen) {
        const text = `The team has ${buildLimits.maxOpen} builds that have not ended (WRENN_BUILD_MAX_OPEN).`
        throw new AppError('limit_exceeded', text)
      }
      const sizes = { vcpus: vcpus ?? null, memory_mib: memoryMib ?? null }
      const draft = { id: buildIds.create(), team_id: teamId, name, tags, state: 'draft', ...sizes } as const
      const build = await insertBuild(tx, { ...draft, actor: JSON.stringify(actor) })
      await record(tx, build, actor, 'template.create')
      return build
    })
  }

  /**
   * Says of what a build is made, and lets it go.
   * @throws AppError `build_not_found`, `invalid_state` when that was said before, `template_not_found` for what it begins with,
   * `invalid_request` for files that were not uploaded
   */
  async submit(ref: BuildRef, asked: SubmittedPlan, actor: Actor): Promise<TemplateBuildInfo> {
    const { db, keyring } = this.#deps
    const { files = [], secretValues, ...said } = asked
    const build = await this.#need(ref)
    const written = { ...said, images: await this.#imagesOf(build, said) }
    const plan =
      secretValues === undefined ? written : { ...written, secrets: sealSecrets(keyring, build.id, secretValues) }
    for (const [at, { steps }] of allStages(plan).entries()) {
      const where = plan.stages === undefined ? '' : `stages.${at}.`
      for (const [index, { type, stage, filesHash = '' }] of steps.entries()) {
        if (type !== 'COPY' || stage !== undefined || (await this.#deps.files.has(ref.teamId, filesHash))) continue
        throw new AppError('invalid_request', `${where}steps.${index}: the files ${filesHash} were not uploaded.`)
      }
    }
    for (const { reference, file } of Object.values(plan.images)) {
      if (file === undefined || (await this.#deps.files.has(ref.teamId, file.hash))) continue
      throw new AppError('invalid_request', `image_files: the file ${file.hash} of ${reference} was not uploaded.`)
    }
    const planned = await db.transaction().execute(async (tx) => {
      const waiting = await planBuild(tx, build.id, plan, traceOf(plan, files))
      if (waiting === undefined) throw new AppError('invalid_state', 'The build has been started before, or has ended.')
      await record(tx, waiting, actor, 'template.build')
      return waiting
    })
    this.#deps.onPlanned()
    return planned
  }

  /** Builds of the team, newest first. */
  async list(teamId: string, filter: ListTemplateBuildsQuery) {
    return await listBuilds(this.#deps.db, teamId, filter)
  }

  /** @throws AppError `build_not_found` */
  async get(teamId: string, id: string): Promise<TemplateBuildInfo> {
    return await this.#need({ teamId, id })
  }

  /** Ends a build that has not ended; the template of its name stays as it is. @throws AppError `build_not_found` */
  async cancel(teamId: string, id: string, actor: Actor): Promise<TemplateBuildInfo> {
    const cancelled = await this.#deps.db.transaction().execute(async (tx) => {
      const build = await cancelBuild(tx, teamId, id, { message: CANCELLED })
      if (build !== undefined) await record(tx, build, actor, 'template.cancel')
      return build
    })
    return cancelled ?? (await this.#need({ teamId, id }))
  }

  /**
   * What a build has said from line `from` on; waits up to `waitMs` for a line, or its end.
   * @throws AppError `build_not_found`
   */
  async follow(
    ref: BuildRef,
    { from, limit, waitMs }: { readonly from: number; readonly limit: number; readonly waitMs: number },
    signal: AbortSignal,
  ): Promise<BuildStatus> {
    const untilMs = performance.now() + waitMs
    for (;;) {
      const status = await this.status(ref, from, limit)
      const isOver = status.build.ended_at !== null || performance.now() >= untilMs || signal.aborted
      if (status.lines.length > 0 || isOver) return status
      await delay(FOLLOW_EVERY_MS, undefined, { signal }).catch(() => {})
    }
  }

  /** The images of a plan; whatever else it begins with is there. @throws AppError `template_not_found` */
  async #imagesOf(
    build: TemplateBuildInfo,
    { images = {}, isDockerfile, ...plan }: Omit<SubmittedPlan, 'secretValues'>,
  ) {
    const { db, host, limits, keyring } = this.#deps
    const named = new Map(Object.entries(images))
    const found = new Map<string, BuildImage>()
    for (const { from } of allStages(plan)) {
      const find = () => originOf({ db, host, diskSizeMib: limits.defaultDiskSizeMib }, build, { from })
      const image = named.get(from) ?? (await imageUnlessTemplate(find, isDockerfile === true ? from : undefined))
      if (image !== undefined) found.set(from, sealedImage(keyring, build.id, image))
    }
    return Object.fromEntries(found)
  }

  /** A build, and what it has said from line `from` on. @throws AppError `build_not_found` */
  async status(ref: BuildRef, from: number, limit: number): Promise<BuildStatus> {
    // The state first: after an end there are no more lines.
    const build = await this.#need(ref)
    return { build, lines: await listBuildLog(this.#deps.db, build.id, from, limit) }
  }

  /**
   * Where files of a build go: of this one, or of the template's newest that is under way.
   * @throws AppError `build_not_found` when there is none; `invalid_state` when this one has ended
   */
  async uploadLink(
    principal: Principal,
    of: { readonly id: string } | { readonly name: string },
    hash: string,
  ): Promise<UploadLink> {
    const { files, links, buildLimits } = this.#deps
    const { teamId } = principal
    const build = await this.#needOpen(teamId, of)
    const isPresent = await files.has(teamId, hash)
    const forMs = buildLimits.timeoutMs + UPLOAD_SPARE_MS
    return { isPresent, ticket: await links.sign(principal, { buildId: build.id, hash }, forMs) }
  }

  /** Takes what a link is for. @throws AppError `forbidden`, `too_large`, `disk_full` */
  async upload(ticket: UploadTicket, source: Readable, expectedBytes: number | undefined): Promise<void> {
    await this.#deps.links.verify(ticket)
    await this.#deps.files.receive(ticket, source, expectedBytes)
  }

  /**
   * Deletes a template, and cancels the builds of it that are under way.
   * @throws AppError `template_not_found` when there is neither, and those of `Snapshots.remove`
   */
  async remove(teamId: string, name: string, actor: Actor): Promise<void> {
    const { db, snapshots } = this.#deps
    const cancelled = await db.transaction().execute(async (tx) => {
      const builds = await cancelBuilds(tx, teamId, name, { message: CANCELLED })
      for (const build of builds) await record(tx, build, actor, 'template.cancel')
      return builds
    })
    const isThere = (await findSnapshotByName(db, teamId, name)) !== undefined
    if (isThere || cancelled.length === 0) await snapshots.remove(teamId, name, actor)
  }

  async #needOpen(teamId: string, of: { readonly id: string } | { readonly name: string }) {
    if ('id' in of) {
      const build = await this.#need({ teamId, id: of.id })
      if (build.ended_at === null) return build
      throw new AppError('invalid_state', `The build ${build.id} has ended; begin another.`)
    }
    const build = await findOpenBuild(this.#deps.db, teamId, of.name)
    if (build !== undefined) return build
    throw new AppError('build_not_found', `There is no build of ${of.name} under way.`)
  }

  async #need({ teamId, name, id }: BuildRef): Promise<TemplateBuildInfo> {
    const build = await findBuild(this.#deps.db, teamId, id)
    if (build !== undefined && (name === undefined || build.name === name)) return build
    throw new AppError('build_not_found', `There is no build ${id}${name === undefined ? '' : ` of ${name}`}.`)
  }
}

async function record(tx: Db, { team_id: teamId, name, id }: TemplateBuildInfo, actor: Actor, action: string) {
  const resource = { type: 'template', id: name } as const
  await writeAudit(tx, { teamId, actor, action, resource, details: { build_id: id } })
}
