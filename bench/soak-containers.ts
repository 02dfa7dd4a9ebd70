// node --conditions=wrenn-source --import tsx bench/soak-containers.ts [--engines docker,podman] [--port 8206]
// Runs containers inside a capsule with Debian's docker.io and podman, as docs/containers.md tells a user to: installs the engine,
// makes an image from the capsule's own files, builds on it, serves a port from a container with a volume; then pauses and
// resumes, forks three times and rolls back while that container runs. Needs Debian's archive; without KVM it takes about
// ten minutes an engine.
import { parseArgs } from 'node:util'
import { errorText } from '@wrenn/base'
import type { Capsule } from '@wrenn/sdk'
import type { Platform } from './platform.js'
import { log, withPlatform } from './soak.js'
import { round } from './stats.js'

const MEMORY_MIB = 2048
const DISK_MIB = 8192
const INSTALL_TIMEOUT_MS = 30 * 60_000
const COMMAND_TIMEOUT_MS = 10 * 60_000
const PORT = 8080

interface Engine {
  readonly packages: readonly string[]
  /** Starts what the engine needs to run, and waits for it; a shell line. */
  readonly start: string
  /** Prints the storage driver. */
  readonly driver: string
  readonly expectedDriver: string
}

const ENGINES: Readonly<Record<string, Engine>> = {
  docker: {
    packages: ['docker.io', 'iptables', 'busybox-static'],
    start: 'until docker info >/dev/null 2>&1; do sleep 0.5; done',
    driver: "docker info --format '{{.Driver}}'",
    expectedDriver: 'overlay2',
  },
  podman: {
    packages: ['podman', 'netavark', 'aardvark-dns', 'iptables', 'busybox-static'],
    start: 'true',
    driver: "podman info --format '{{.Store.GraphDriverName}}'",
    expectedDriver: 'overlay',
  },
}

const { values } = parseArgs({
  options: { engines: { type: 'string', default: 'docker,podman' }, port: { type: 'string', default: '8206' } },
})

const DOCKERFILE = `FROM local/busybox
RUN mkdir /www && echo built > /www/index.html
CMD ["/bin/busybox", "sh", "-c", "n=0; while :; do n=$((n + 1)); echo $n > /data/count; busybox sleep 1; done & exec busybox httpd -f -p 80 -h /www"]
`

/** One capsule with one engine, and what was measured of it. */
class Containers {
  readonly ms: Record<string, number> = {}
  readonly #name: string
  readonly #engine: Engine

  constructor(name: string, engine: Engine) {
    this.#name = name
    this.#engine = engine
  }

  async timed<T>(step: string, work: () => Promise<T>): Promise<T> {
    const start = performance.now()
    const result = await work()
    this.ms[step] = round(performance.now() - start)
    log(`${this.#name}: ${step} ${this.ms[step]} ms`)
    return result
  }

  async install(capsule: Capsule): Promise<void> {
    const packages = this.#engine.packages.join(' ')
    const line = `apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends ${packages}`
    await this.timed('install', () => sh(capsule, line, INSTALL_TIMEOUT_MS))
  }

  async begin(capsule: Capsule): Promise<void> {
    const { start, driver, expectedDriver } = this.#engine
    await this.timed('engine up', async () => {
      if (this.#name === 'docker') await capsule.start('exec dockerd >/var/log/dockerd.log 2>&1', { user: 'root' })
      await sh(capsule, start)
    })
    expectEqual('storage driver', await sh(capsule, driver), expectedDriver)
  }

  async build(capsule: Capsule): Promise<void> {
    const engine = this.#name
    const tree = 'mkdir -p /root/tree/bin && cp /bin/busybox /root/tree/bin/ && ln -sf busybox /root/tree/bin/sh'
    await this.timed('import', () =>
      sh(capsule, `${tree} && tar -C /root/tree -c . | ${engine} import - local/busybox`),
    )
    await capsule.files.write('/root/build/Dockerfile', new TextEncoder().encode(DOCKERFILE), { user: 'root' })
    await this.timed('build', () => sh(capsule, `${engine} build -t local/web /root/build`))
  }

  async run(capsule: Capsule): Promise<void> {
    const publish = `-p ${PORT}:80 -v counts:/data`
    await this.timed('run', () => sh(capsule, `${this.#name} run -d --name web ${publish} local/web`))
    await this.timed('published port', () => this.answers(capsule))
  }

  /** The published port answers from the capsule itself, the container counts on, and another one can be run. */
  async answers(capsule: Capsule): Promise<void> {
    const page = `until curl -sf http://localhost:${PORT}/; do sleep 0.2; done`
    expectEqual('page', await sh(capsule, page), 'built')
    const before = await this.count(capsule)
    await sh(capsule, `until [ $(${this.#name} exec web busybox cat /data/count) -gt ${before} ]; do sleep 0.2; done`)
    const line = `${this.#name} run --rm -v counts:/data local/web /bin/busybox sh -c "busybox ls /data; echo ran"`
    expectEqual('another container', await sh(capsule, line), 'count\nran')
  }

  async count(capsule: Capsule): Promise<number> {
    const text = await sh(
      capsule,
      `until n=$(${this.#name} exec web busybox cat /data/count) && [ -n "$n" ]; do :; done; echo $n`,
    )
    return Number(text)
  }

  /** Goes on from where it was, in every copy. */
  async live(capsule: Capsule): Promise<void> {
    const before = await this.count(capsule)
    await this.timed('pause', () => capsule.pause())
    await this.timed('resume', () => capsule.resume())
    await this.answers(capsule)
    const forks = await this.timed('fork 3', () => capsule.fork({ count: 3 }))
    for (const [index, fork] of forks.entries()) {
      await this.answers(fork)
      await sh(fork, `${this.#name} exec web sh -c "echo ${index} > /data/fork"`)
    }
    const seen = await Promise.all(forks.map((fork) => sh(fork, `${this.#name} exec web busybox cat /data/fork`)))
    expectEqual('what each fork wrote', seen.join(' '), '0 1 2')
    for (const fork of forks) await fork.destroy()
    await this.timed('checkpoint', () => capsule.checkpoint('running'))
    await sh(capsule, `${this.#name} rm -f web && ${this.#name} volume rm counts && ${this.#name} rmi local/web`)
    await this.timed('rollback', () => capsule.rollback('running'))
    await this.answers(capsule)
    const after = await this.count(capsule)
    if (!(after > before)) throw new Error(`The count went from ${before} to ${after}.`)
  }
}

/** Followed, because an HTTP client that waits for one answer gives up after five minutes. */
async function sh(capsule: Capsule, line: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<string> {
  const decoder = new TextDecoder()
  let stdout = ''
  let stderr = ''
  for await (const event of await capsule.stream(line, { user: 'root', timeoutMs })) {
    if (event.type === 'stdout') stdout += decoder.decode(event.data, { stream: true })
    if (event.type === 'stderr') stderr += Buffer.from(event.data).toString()
    if (event.type === 'exit' && event.exitCode !== 0)
      throw new Error(`${line}\nended with ${event.exitCode}: ${stderr.slice(-2000)}${stdout.slice(-500)}`)
  }
  return stdout.trim()
}

function expectEqual(what: string, found: string, expected: string): void {
  if (found !== expected) throw new Error(`${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`)
}

async function runEngine(platform: Platform, name: string): Promise<Record<string, unknown>> {
  const engine = ENGINES[name]
  if (engine === undefined) throw new Error(`--engines knows ${Object.keys(ENGINES).join(', ')}, not ${name}.`)
  const containers = new Containers(name, engine)
  const template = `soak-${name}`
  const known = await platform.wrenn.templates.list()
  if (!known.some((one) => one.name === template)) {
    await using installer = await platform.wrenn.capsules.create({ memoryMib: MEMORY_MIB, diskSizeMib: DISK_MIB })
    await containers.install(installer)
    await installer.snapshot(template)
  }
  await using capsule = await platform.wrenn.capsules.create({ template })
  try {
    await containers.begin(capsule)
    await containers.build(capsule)
    await containers.run(capsule)
    await containers.live(capsule)
    const { stdout } = await capsule.exec('lsmod | wc -l; uname -r', { user: 'root' })
    return { engine: name, ok: true, modulesAndKernel: stdout.trim().split('\n'), ms: containers.ms }
  } catch (error) {
    return { engine: name, ok: false, why: errorText(error), ms: containers.ms }
  }
}

const results = await withPlatform(Number(values.port), async (platform) => {
  const results: Record<string, unknown>[] = []
  for (const name of values.engines.split(',')) results.push(await runEngine(platform, name))
  return results
})
console.log(JSON.stringify(results, undefined, 2))
process.exit(results.every(({ ok }) => ok === true) ? 0 : 1)
