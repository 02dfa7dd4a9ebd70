import { execFile } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { chmod, copyFile, mkdir, mkdtemp, open, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { TemplateBuild, TemplateBuildFiles, TemplateBuildLog } from '@wrenn/protocol'
import { tarOf, writeOciLayout } from '@wrenn/testkit'
import type { Api } from '../../e2e/harness/api.js'
import { capsuleTraces, engines, entries, listHost, processesOf } from '../../e2e/harness/host.js'
import { type Platform, pidsOf } from '../../e2e/harness/platform.js'
import { eventually } from '../../e2e/harness/wait.js'
import type { BuildCase } from './build-cases.js'

const run = promisify(execFile)
const BUILDS = '/v1/templates/builds'
/** As recipes call the image that comes as a file. */
const IMAGE = 'image.tar'
const ENDS_WITHIN_MS = 240_000
/** What a build of the recipe keeps: of its two steps that change files, of the stage's, and the template. */
const SNAPSHOTS = 4

export interface EndedBuild {
  readonly state: TemplateBuild['state']
  readonly reason: string
  readonly text: string
  readonly cached: number
}

/** Builds templates of one recipe, breaks them off, and says what is left. */
export class Builder {
  readonly #api: Api
  readonly #platform: Platform
  readonly #stepFile: string
  /** Recipes that were built: each has results of its own. */
  readonly #recipes = new Set<string>()

  /** @param stepFile in a folder of its own, which the control plane's user may write to */
  constructor(api: Api, platform: Platform, stepFile: string) {
    this.#api = api
    this.#platform = platform
    this.#stepFile = stepFile
  }

  /** The folder of the steps' file. */
  static async prepare(folder: string): Promise<string> {
    await mkdir(folder, { recursive: true })
    await chmod(folder, 0o777)
    return join(folder, 'step')
  }

  /** @param recipe tells recipes apart that come to the same files */
  async begin(recipe: string, isOfImage = false): Promise<string> {
    this.#recipes.add(recipe)
    const { id } = await this.#api.json<TemplateBuild>('POST', BUILDS, { json: { name: recipe } })
    const images = isOfImage ? { image_files: { [IMAGE]: { files_hash: await this.#uploadImage(id, recipe) } } } : {}
    const json = { stages: stagesOf(recipe, isOfImage), ...images }
    // Who is killed at its first step has it, and may not have answered.
    await this.#api.call('POST', `${BUILDS}/${id}/start`, { json }).catch(() => {})
    return id
  }

  /** @returns by what the upload is called */
  async #uploadImage(id: string, recipe: string): Promise<string> {
    const hash = createHash('sha256').update(recipe).digest('hex')
    const link = await this.#api.json<TemplateBuildFiles>('GET', `${BUILDS}/${id}/files/${hash}`)
    if (!link.present) await fetch(link.upload_url, { method: 'PUT', body: new Uint8Array(await imageOf(recipe)) })
    return hash
  }

  async ended(id: string): Promise<EndedBuild> {
    return await eventually(
      `the build ${id} to end`,
      async () => {
        const answer = await this.#api
          .json<TemplateBuildLog>('GET', `${BUILDS}/${id}/log`, { query: { from: '0', limit: '1000' } })
          .catch(() => undefined) // the control plane may be on its way
        if (answer?.build.ended_at === undefined) return undefined
        const { state, reason } = answer.build
        const lines = answer.lines.map(({ message }) => message)
        const cached = lines.filter((line) => line.startsWith('CACHED')).length
        return { state, reason: reason?.message ?? '', text: lines.join('\n'), cached }
      },
      ENDS_WITHIN_MS,
    )
  }

  async build(recipe: string, isOfImage = false): Promise<EndedBuild> {
    return await this.ended(await this.begin(recipe, isOfImage))
  }

  /** SHA-256 of all that the recipe made, by names, as a capsule of the template has it. */
  async digest(recipe: string): Promise<string> {
    const capsule = await this.#api.create({ template: recipe })
    const line = 'cd /srv/built && find . -type f | sort | xargs sha256sum && find . | sort | xargs stat -c "%n %a %u"'
    const text = await capsule.text(line, { user: 'root' })
    await capsule.destroy()
    return text
  }

  /** Begins a build and kills what the case says where it says; the build may have ended when this returns. */
  async broken(recipe: string, { victim, at, isOfImage = false }: BuildCase): Promise<string> {
    if (victim === 'sandbox') return await this.#withoutSandbox(recipe)
    const owner = at.startsWith('build:') ? 'control-plane' : 'host-agent'
    const pid = await this.#pidOf(owner)
    const isOwn = owner === victim.replace(' ', '-')
    await this.#arm(`${at} ${isOwn ? 'kill' : 'stop'}`)
    const id = await this.begin(recipe, isOfImage)
    if (isOwn) {
      await untilGone(pid)
      return id
    }
    await eventually(`the ${owner} to stop at ${at}`, async () => (await isStopped(pid)) || undefined, ENDS_WITHIN_MS)
    try {
      await this.#kill(victim === 'engine' ? await this.#newestEngine() : await this.#pidOf('control-plane'))
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    return id
  }

  /** Of a stage before there may still be one, on its way out. */
  async #newestEngine(): Promise<number> {
    return Math.max(...(await engines(this.#platform.dir)).map(({ pid }) => pid))
  }

  async #withoutSandbox(recipe: string): Promise<string> {
    const id = await this.begin(recipe, true)
    const pid = await eventually(
      'a sandbox',
      async () => (await processesOf(this.#platform.dir)).find(({ argv }) => argv[0] === 'bwrap')?.pid,
      ENDS_WITHIN_MS,
    )
    await this.#kill(pid)
    return id
  }

  async #kill(pid: number): Promise<void> {
    process.kill(pid, 'SIGKILL')
    await untilGone(pid)
  }

  async disarm(): Promise<void> {
    await rm(this.#stepFile, { force: true })
  }

  async #arm(text: string): Promise<void> {
    const beside = `${this.#stepFile}.new`
    await writeFile(beside, `${text}\n`)
    await rename(beside, this.#stepFile)
  }

  async #pidOf(name: string): Promise<number> {
    return await eventually(`the ${name}`, async () => (await pidsOf(this.#platform))[name])
  }

  /** Everything that no template, no result and no process of the platform's own accounts for; empty lists when all is well. */
  async leftovers() {
    const { snapshots = [], ...traces } = await capsuleTraces(this.#platform)
    const { dir } = this.#platform
    const { mounts, loops, processes } = await listHost(this.#platform)
    const files = await run('find', [join(dir, 'build-files'), '-name', '*.part'])
    return {
      ...traces,
      capsules: (await this.#api.list()).map(({ id }) => id),
      snapshots: snapshots.length === SNAPSHOTS * this.#recipes.size ? [] : snapshots,
      drafts: snapshots.filter((name) => name.endsWith('.tmp')),
      fetches: await entries(join(dir, 'pool', 'layers', 'fetches')),
      mounts: mounts.filter((path) => path !== join(dir, 'pool')),
      loops: loops.slice(1),
      sandboxes: processes.filter((line) => /bwrap|skopeo|umoci/.test(line)),
      unfinished: files.stdout.trim().split('\n').filter(Boolean),
      open: (await this.#api.json<readonly TemplateBuild[]>('GET', BUILDS, { query: { state: 'open' } })).map(
        ({ id }) => id,
      ),
    }
  }

  async expectNothingLeft(): Promise<void> {
    let seen = ''
    await eventually(
      () => `nothing to be left of builds; last seen: ${seen}`,
      async () => {
        const left = await this.leftovers()
        seen = JSON.stringify(left)
        return Object.values(left).every((names) => names.length === 0) ? true : undefined
      },
    )
  }

  /** Results and template of the build of a recipe, the oldest first. */
  async savedSince(before: readonly string[]): Promise<string[]> {
    const at = join(this.#platform.dir, 'pool', 'snapshots')
    const names = (await entries(at)).filter((name) => !before.includes(name))
    const times = await Promise.all(
      names.map(
        async (name) => JSON.parse(await readFile(join(at, name, 'manifest.json'), 'utf8')).savedAtMs as number,
      ),
    )
    return names
      .map((name, index) => ({ name, time: times[index] ?? 0 }))
      .sort((a, b) => a.time - b.time)
      .map(({ name }) => name)
  }

  async saved(): Promise<string[]> {
    return await entries(join(this.#platform.dir, 'pool', 'snapshots'))
  }

  /** Puts other bytes where a saved disk has `text`, once its digest is known. */
  async poison(snapshot: string, text: string, other: string): Promise<void> {
    const at = join(this.#platform.dir, 'pool', 'snapshots', snapshot)
    await eventually('its digest', async () => (await entries(at)).includes('durable.json') || undefined)
    const path = join(at, 'disk.raw')
    const { stdout } = await run('grep', ['-obUaF', '-m1', text, path])
    const offset = Number(stdout.split(':')[0])
    await using file = await open(path, 'r+')
    await file.write(other, offset)
    await file.sync()
  }

  /** A host that has lost a snapshot. */
  async lose(snapshot: string): Promise<void> {
    await rm(join(this.#platform.dir, 'pool', 'snapshots', snapshot), { recursive: true })
  }
}

async function isStopped(pid: number): Promise<boolean> {
  return (await readFile(`/proc/${pid}/stat`, 'utf8')).includes(') T ')
}

async function isAlive(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return text !== '' && !text.includes(') Z ')
}

async function untilGone(pid: number): Promise<void> {
  await eventually(
    `the process ${pid} to be gone`,
    async () => ((await isAlive(pid)) ? undefined : true),
    ENDS_WITHIN_MS,
  )
}

/** Each step adds to what is there: one that is done twice, or not at all, shows. Its first line makes a recipe another one. */
function stagesOf(recipe: string, isOfImage: boolean) {
  const step = (line: string) => ({ type: 'RUN', args: [line, 'root'], shell: ['/bin/sh', '-c'] })
  const copy = { type: 'COPY', args: ['srv/built/part', '/srv/built/part', 'root'], stage: 0 }
  const add = step(`: ${recipe}; mkdir -p /srv/built; echo original-content >> /srv/built/all`)
  return [
    { from: 'minimal', steps: [step(`: ${recipe}; mkdir -p /srv/built; echo part >> /srv/built/part`)] },
    { from: isOfImage ? IMAGE : 'minimal', steps: [add, copy] },
  ]
}

/** A userland of one static program, as a tar of an OCI layout. So large that its unpacking takes a moment. */
async function imageOf(recipe: string): Promise<Buffer> {
  const scratch = await mkdtemp('/var/tmp/wchaos-image-')
  try {
    const [root, layout] = [join(scratch, 'root'), join(scratch, 'layout')]
    for (const folder of ['bin', 'sbin', 'usr/bin', 'usr/sbin', 'etc', 'tmp', 'srv', 'var/tmp', 'root'])
      await mkdir(join(root, folder), { recursive: true })
    await copyFile('/bin/busybox', join(root, 'bin/busybox'))
    const { stdout } = await run('/bin/busybox', ['--list-full'])
    for (const path of stdout.trim().split('\n'))
      if (/^(?:bin|sbin|usr\/bin)\/[\w[]+$/.test(path) && path !== 'bin/busybox')
        await symlink('/bin/busybox', join(root, path))
    await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh')
    await writeFile(join(root, 'etc/group'), 'root:x:0:\n')
    await writeFile(join(root, 'srv/recipe'), recipe)
    await writeFile(join(root, 'srv/filler'), randomBytes(64 * 2 ** 20))
    await writeOciLayout(layout, [{ layers: [tarOf(root)], config: { Env: ['PATH=/usr/bin:/bin:/usr/sbin:/sbin'] } }])
    return tarOf(layout)
  } finally {
    await rm(scratch, { recursive: true })
  }
}
