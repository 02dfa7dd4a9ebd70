// node --conditions=wrenn-source --import tsx bench/builds.ts [--rounds 5] [--seconds 10] [--rootfs debian.tar] [--port 8206]
// What builds of templates cost, everything in turn. First a Dockerfile of 20 steps whose last changed, beside that step alone: as the only step
// of a build on the template that has the other 19, and as a command in a capsule that runs. Then, where buildah is installed, an image of a
// registry of its own until there is a template, beside buildah until there is an image, by the same Dockerfile, and its commands alone in a capsule
// that runs. For that it takes a root file system, as `mmdebstrap --variant=minbase bookworm debian.tar` makes. As root, after a build.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { readDockerfile } from '@wrenn/sdk/dockerfile'
import { CLI, type Platform, platformEnv } from './platform.js'
import { log, withPlatform } from './soak.js'
import { median, percentile, round, timed } from './stats.js'

const STEPS = 20
const FILES = 500
const REGISTRY = '127.0.0.1:5306'
const APP = '/srv/app'
/** What the steps of the Dockerfile for both do. */
const COMMANDS = [
  `find ${APP} -type f | sort | xargs sha256sum > /srv/sums`,
  'tar -C /usr/share -czf /srv/share.tar.gz doc perl5',
  `useradd -m app && chown -R app ${APP}`,
  'cp -a /usr/lib/x86_64-linux-gnu/perl-base /srv/lib && find /srv/lib -type f | wc -l',
] as const

const run = promisify(execFile)
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '10' },
    rootfs: { type: 'string' },
    port: { type: 'string', default: '8206' },
  },
})
const rounds = Number(values.rounds)

type Samples = Record<string, number[]>

function add(samples: Samples, name: string, ms: number): void {
  samples[name] = [...(samples[name] ?? []), ms]
  log(`  ${name}: ${round(ms / 1000, 2)} s (load ${round(loadavg()[0] ?? 0)})`)
}

/** Medians and quartiles; ratios are of each round, to what was measured beside it. */
function show(title: string, samples: Samples, of: string): void {
  console.log(`\n${title}`)
  const base = samples[of] ?? []
  for (const [name, all] of Object.entries(samples)) {
    const ratios = all.map((ms, index) => ms / (base[index] ?? Number.NaN))
    const spread = [25, 75].map((percent) => round(percentile(ratios, percent), 2)).join('–')
    const ratio = name === of ? '' : `, ${round(median(ratios), 2)} (${spread}) × ${of}`
    const range = `${round(Math.min(...all) / 1000, 2)}–${round(Math.max(...all) / 1000, 2)}`
    console.log(`  ${name.padEnd(44)} ${round(median(all) / 1000, 2)} s (${range})${ratio}`)
  }
}

/** A line for a shell that takes about so long in the guest, and that no build has seen. */
function work(turns: number, token: string): string {
  return `for n in $(seq ${turns}); do head -c 1000000 /dev/zero | sha256sum > /root/last; done; echo ${token}`
}

/** How many turns of the work take so long in the guest as it is now. */
async function turnsOf(platform: Platform, capsule: string, seconds: number): Promise<number> {
  const { ms } = await timed(() => platform.exec(capsule, '/bin/bash', ['-c', work(5, 'warm')]))
  return Math.max(1, Math.round((seconds * 5000) / ms))
}

async function changedStep(platform: Platform): Promise<void> {
  const steps = Array.from({ length: STEPS - 1 }, (_, index) => `RUN echo ${index} > /root/step-${index}`)
  const build = async (name: string, lines: readonly string[]) =>
    await platform.wrenn.templates.build(name, await readDockerfile(lines.join('\n')))
  await build('bench-before', ['FROM minimal', ...steps])
  const { id } = await platform.create({ template: 'bench-before' })
  for (const seconds of [0, Number(values.seconds)]) {
    const turns = seconds === 0 ? 1 : await turnsOf(platform, id, seconds)
    const samples: Samples = {}
    for (let index = 0; index < rounds; index++) {
      const line = (kind: string) => work(turns, `${kind}-${seconds}-${index}-${Date.now()}`)
      add(
        samples,
        'the command alone, in a capsule',
        (await timed(() => platform.exec(id, '/bin/bash', ['-c', line('c')]))).ms,
      )
      const alone = ['FROM bench-before', `RUN ${line('a')}`]
      add(samples, 'that step alone', (await timed(() => build('bench-alone', alone))).ms)
      const all = ['FROM minimal', ...steps, `RUN ${line('b')}`]
      add(samples, `${STEPS} steps, the last one changed`, (await timed(() => build('bench-changed', all))).ms)
    }
    show(
      `A step of ${seconds === 0 ? 'next to nothing' : `about ${seconds} s`}, ${rounds} rounds`,
      samples,
      'that step alone',
    )
  }
  await platform.destroy(id)
}

/** buildah with a storage of its own, and a registry with one base image. */
class Buildah implements AsyncDisposable {
  readonly #dir: string
  readonly #registry: ChildProcess
  #isKnown = false

  private constructor(dir: string, registry: ChildProcess) {
    this.#dir = dir
    this.#registry = registry
  }

  static async start(): Promise<Buildah> {
    const dir = await mkdtemp(join(tmpdir(), 'wrenn-bench-buildah-'))
    const config = `version: 0.1\nstorage: {filesystem: {rootdirectory: ${dir}/registry}}\nhttp: {addr: ${REGISTRY}}\n`
    await writeFile(join(dir, 'registry.yml'), config)
    const registry = spawn('docker-registry', ['serve', join(dir, 'registry.yml')], { stdio: 'ignore' })
    await once(registry, 'spawn')
    return new Buildah(dir, registry)
  }

  async run(...args: readonly string[]): Promise<string> {
    const where = [
      '--root',
      join(this.#dir, 'root'),
      '--runroot',
      join(this.#dir, 'run'),
      '--storage-driver',
      'overlay',
    ]
    const { stdout } = await run('buildah', [...where, ...args], { maxBuffer: 2 ** 26 })
    return stdout.trim()
  }

  /** An image of the same layers that nobody has seen. */
  async push(rootfs: string, tag: string): Promise<string> {
    const name = `${REGISTRY}/base:${tag}`
    const container = await this.run('from', this.#isKnown ? 'localhost/rootfs' : 'scratch')
    if (!this.#isKnown) {
      await this.run('add', '-q', container, rootfs, '/')
      await this.run('commit', '-q', container, 'localhost/rootfs')
      this.#isKnown = true
    }
    await this.run('config', '--label', `turn=${tag}`, container)
    await this.run('commit', '-q', '--tls-verify=false', container, `docker://${name}`)
    await this.run('rm', container)
    return name
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.run('rm', '--all').catch(() => {}) // what is left of an end in the middle goes with the directory
    this.#registry.kill()
    await rm(this.#dir, { recursive: true, force: true })
  }
}

async function besideBuildah(platform: Platform, rootfs: string): Promise<void> {
  await using buildah = await Buildah.start()
  const context = await mkdtemp(join(tmpdir(), 'wrenn-bench-context-'))
  try {
    for (let index = 0; index < FILES; index++) {
      const folder = join(context, 'src', String(index % 20))
      await mkdir(folder, { recursive: true })
      await writeFile(join(folder, String(index)), `${index}\n`.repeat(1000))
    }
    const samples: Samples = {}
    for (let index = 0; index < rounds; index++) {
      const name = await buildah.push(rootfs, String(index))
      const text = [`FROM ${name}`, `COPY src ${APP}`, ...COMMANDS.map((line) => `RUN ${line}`), 'USER app'].join('\n')
      await writeFile(join(context, 'Dockerfile'), text)
      const template = ['template', 'build', 'bench-beside', context, '--no-cache']
      const env = platformEnv(platform.clientEnv)
      const cli = async () => await run(process.execPath, [CLI, ...template], { env, maxBuffer: 2 ** 26 })
      const options = ['--layers', '--no-cache', '--tls-verify=false', '--isolation', 'chroot']
      const image = async () => await buildah.run('build', '-q', ...options, '-t', 'localhost/beside', context)
      add(samples, 'buildah, base not there', (await timed(image)).ms)
      add(samples, 'wrenn, base not there', (await timed(cli)).ms)
      add(samples, 'buildah, base there', (await timed(image)).ms)
      add(samples, 'wrenn, base there', (await timed(cli)).ms)
      const { id } = await platform.create({ template: 'bench-beside' })
      const undo = 'userdel -r app; rm -rf /srv/lib /srv/sums /srv/share.tar.gz'
      await platform.exec(id, '/bin/bash', ['-c', `${undo} 2>/dev/null; true`])
      const each = async () => {
        for (const line of COMMANDS) await platform.exec(id, '/bin/bash', ['-c', line])
      }
      add(samples, 'its commands alone, in a capsule', (await timed(each)).ms)
      await platform.destroy(id)
    }
    show(`Base → ready, ${rounds} rounds`, samples, 'buildah, base there')
  } finally {
    await rm(context, { recursive: true, force: true })
  }
}

async function isInstalled(program: string): Promise<boolean> {
  return await run(program, ['--version']).then(
    () => true,
    () => false,
  )
}

const env = { WRENN_REGISTRIES_ALLOW: REGISTRY, WRENN_REGISTRIES_PLAIN: REGISTRY, WRENN_BUILD_CACHE_RESULTS: '100' }
await withPlatform(
  Number(values.port),
  async (platform) => {
    await changedStep(platform)
    const { rootfs } = values
    const isThere = (await isInstalled('buildah')) && (await isInstalled('docker-registry'))
    if (rootfs !== undefined && isThere) await besideBuildah(platform, rootfs)
    else log('Not beside buildah: that takes buildah, docker-registry and --rootfs.')
    for (const name of ['bench-before', 'bench-alone', 'bench-changed', 'bench-beside'])
      await platform.call('DELETE', `/v1/templates/${name}`).catch(() => {}) // one that was not built
  },
  env,
)
