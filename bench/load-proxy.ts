// node --conditions=wrenn-source --import tsx bench/load-proxy.ts [--rounds 5] [--seconds 5] [--connections 32] [--idle 10000] [--requests 0] [--only requests,messages] [--beside OTHER/main.mjs]
// The proxy of ports beside a plain one of Node's own parts and beside nginx, turn by turn, to the same small service on this machine; then what
// it keeps for each idle WebSocket and, by --requests, whether it grows. Needs wrk and nginx. All of them connect straight to the service; the host agent's
// part, which leases its address and is on no request's way, is in this process.
// --beside takes a turn with another build of the control plane, whose CPU time for a request is then comparable however busy the machine is.
// Of a service in a capsule of a running platform: --wrenn http://127.0.0.1:8000 --name 8080-cl-….localhost --service http://ADDRESS:8080, the
// address at which the host reaches the guest.
import { type ChildProcess, execFile, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { waitFor } from '@wrenn/base'
import { freePort } from '@wrenn/testkit'
import { LOOK_EVERY_MS } from '../apps/control-plane/src/background.js'
import { startPlatform } from '../apps/control-plane/src/testing/harness.js'
import { processUse } from './machine.js'
import { median, round } from './stats.js'

const run = promisify(execFile)
const CONTROL_PLANE = new URL('../apps/control-plane/dist/main.mjs', import.meta.url).pathname
/** A CPU profile of the proxy goes to the directory that it names. */
const PROFILE =
  process.env.BENCH_PROFILE === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${process.env.BENCH_PROFILE}`]
const NGINX_CONNECTIONS = 64
const MAX_CONNECTIONS = 65_536
/** An idle WebSocket has one at each end in the proxy. */
const FILES_PER_SOCKET = 2
/** What a process has open beside its connections, with room to spare. */
const OTHER_OPEN_FILES = 500
/** Node has collected what it made by then. */
const SETTLED_AFTER_MS = 5_000
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '5' },
    connections: { type: 'string', default: '32' },
    idle: { type: 'string', default: '10000' },
    requests: { type: 'string', default: '0' },
    wrenn: { type: 'string' },
    name: { type: 'string' },
    service: { type: 'string' },
    only: { type: 'string', default: 'requests,messages' },
    beside: { type: 'string' },
  },
})
const seconds = Number(values.seconds)

interface Role {
  readonly child: ChildProcess
  /** Where it listens, or what it has found. */
  readonly said: string
}

async function role(name: string, settings: Readonly<Record<string, string>>): Promise<Role> {
  const child = fork(new URL('./proxy/roles.ts', import.meta.url), [name], {
    env: { ...process.env, ROLE: JSON.stringify(settings) },
  })
  const [said] = await once(child, 'message')
  return { child, said }
}

/** `wrenn proxy`, as it is built. */
async function wrenn(main: string, env: Readonly<Record<string, string>>): Promise<Role> {
  const port = await freePort()
  const child = spawn(process.execPath, [...PROFILE, main, 'proxy'], {
    env: { ...process.env, ...env, WRENN_PORT: String(port), WRENN_LOG_LEVEL: 'warn' },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  await waitFor(async () => (await isOpen(port)) || undefined, { timeoutMs: 20_000, what: 'the proxy to listen' })
  return { child, said: `http://127.0.0.1:${port}` }
}

async function nginx(dir: string, service: string, port: number): Promise<ChildProcess> {
  const config = join(dir, 'nginx.conf')
  await writeFile(
    config,
    `daemon off; master_process off; user root; pid ${dir}/nginx.pid; error_log stderr crit;
     events { worker_connections 8192; }
     http { access_log off; client_body_temp_path ${dir}/body; proxy_temp_path ${dir}/proxy; fastcgi_temp_path ${dir}/f; uwsgi_temp_path ${dir}/u; scgi_temp_path ${dir}/s;
       map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
       upstream service { server ${new URL(service).host}; keepalive ${NGINX_CONNECTIONS}; }
       server { listen 127.0.0.1:${port} backlog=4096; location / { proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Host $host;
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; } } }`,
  )
  const child = spawn('nginx', ['-c', config, '-p', dir], { stdio: ['ignore', 'inherit', 'inherit'] })
  await waitFor(async () => (await isOpen(port)) || undefined, { timeoutMs: 5_000, what: 'nginx to listen' })
  return child
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}

interface Load {
  readonly perSecond: number
  readonly p99Ms: number
}

/** Requests on kept connections. @throws when one failed */
async function requests(url: string, host: string, forSeconds: number): Promise<Load> {
  const args = ['-t1', `-c${values.connections}`, `-d${forSeconds}s`, '--latency', '-H', `Host: ${host}`, url]
  const { stdout } = await run('wrk', args)
  if (/Non-2xx|Socket errors/.test(stdout)) throw new Error(`${url}: ${stdout}`)
  const [, number = '', unit = ''] = /99%\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? []
  const p99Ms = Number(number) * ({ us: 0.001, ms: 1, s: 1000 }[unit] ?? Number.NaN)
  return { perSecond: Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]), p99Ms }
}

async function messages(url: string, host: string): Promise<Load> {
  const { child, said } = await role('talker', { url, host, connections: values.connections, seconds: values.seconds })
  child.kill()
  return JSON.parse(said)
}

interface Contender {
  readonly url: string
  /** Of the process that is the proxy, where that is known. */
  readonly pid: number | undefined
}

interface Turn extends Load {
  /** User and system time of the proxy's process for one request or message. */
  readonly cpuMicroseconds: number
}

async function turn({ url, pid }: Contender, load: (url: string) => Promise<Load>): Promise<Turn> {
  const used = async (): Promise<number> => (pid === undefined ? Number.NaN : (await processUse(pid)).cpuMs)
  const before = await used()
  const done = await load(url)
  return { ...done, cpuMicroseconds: (((await used()) - before) * 1000) / (done.perSecond * seconds) }
}

type Contenders = ReadonlyMap<string, Contender>

/** All of them in each round, the first another time, so that what the machine does beside is shared. */
async function compare(what: string, contenders: Contenders, load: (url: string) => Promise<Load>): Promise<void> {
  const entries = [...contenders]
  const found = new Map<string, Turn[]>(entries.map(([name]) => [name, []]))
  for (const [, { url }] of entries) await load(url)
  for (let number = 0; number < Number(values.rounds); number++) {
    for (const [name, contender] of [
      ...entries.slice(number % entries.length),
      ...entries.slice(0, number % entries.length),
    ]) {
      found.get(name)?.push(await turn(contender, load))
    }
  }
  const mine = found.get('wrenn') ?? []
  for (const [name, theirs] of found) {
    const of = (key: keyof Turn, digits: number): number => round(median(theirs.map((each) => each[key])), digits)
    const ratios = mine.map(({ perSecond }, at) => perSecond / (theirs[at]?.perSecond ?? Number.NaN))
    console.log(
      `${what}, ${name}: ${of('perSecond', 0)} a second, p99 ${of('p99Ms', 2)} ms, ${of('cpuMicroseconds', 1)} µs of CPU for each; ` +
        `wrenn ${round(median(ratios), 2)} × (${ratios.map((ratio) => round(ratio, 2)).join(' ')})`,
    )
  }
}

async function memory({ child }: Role): Promise<number> {
  await delay(SETTLED_AFTER_MS)
  return (await processUse(child.pid ?? 0)).rssBytes
}

/** @throws Error that says how to have them, when this process and its children may not have so many open files */
async function haveOpenFiles(files: number): Promise<void> {
  const hard = Number(/^Max open files\s+\d+\s+(\d+)/m.exec(await readFile('/proc/self/limits', 'utf8'))?.[1])
  if (hard >= files) return // Node takes all that it may have
  await run('prlimit', [`--pid=${process.pid}`, `--nofile=${files}`]).catch(() => {
    const fitting = Math.floor((hard - OTHER_OPEN_FILES) / FILES_PER_SOCKET)
    throw new Error(
      `This takes ${files} open files of a process, and the limit is ${hard}: raise it, or take --idle ${fitting}.`,
    )
  })
}

async function idle(proxy: Role, host: string, count: number): Promise<void> {
  const before = await memory(proxy)
  const { child } = await role('idler', { url: proxy.said, host, connections: String(count) })
  const after = await memory(proxy)
  console.log(`${count} idle WebSockets: ${round((after - before) / count / 1024, 1)} KiB of memory each`)
  child.kill()
}

async function growth(proxy: Role, host: string, count: number): Promise<void> {
  let done = 0
  while (done < count) {
    const { perSecond } = await requests(proxy.said, host, seconds)
    done += perSecond * seconds
    console.log(`after ${round(done, 0)} requests: ${round((await memory(proxy)) / 2 ** 20, 1)} MiB`)
  }
}

const dir = await mkdtemp(join(tmpdir(), 'wrenn-load-proxy-'))
const children: ChildProcess[] = []

/** Plain proxies to a service, and where those of Wrenn and the name of the port are. */
async function besides(service: string, ours: Contenders, host: string): Promise<void> {
  const plain = await role('plain', { service })
  children.push(plain.child)
  const port = await freePort()
  const worker = await nginx(dir, service, port)
  children.push(worker)
  const contenders = new Map([
    ...ours,
    ['node', { url: plain.said, pid: plain.child.pid }],
    ['nginx', { url: `http://127.0.0.1:${port}`, pid: worker.pid }],
  ])
  const isAsked = (load: string): boolean => values.only.split(',').includes(load)
  if (isAsked('requests')) await compare('requests', contenders, (url) => requests(url, host, seconds))
  if (isAsked('messages')) await compare('WebSocket messages', contenders, (url) => messages(url, host))
}

/** A proxy of its own with a service on this machine behind it: what is between costs most. */
async function onThisMachine(): Promise<void> {
  await haveOpenFiles(FILES_PER_SOCKET * Number(values.idle) + OTHER_OPEN_FILES)
  // As often as outside tests: its looks at the database are no part of what is compared.
  await using platform = await startPlatform({ timing: { tickMs: LOOK_EVERY_MS } })
  const { id } = await platform.create({})
  const service = await role('service', {})
  children.push(service.child)
  const env = {
    DATABASE_URL: platform.databaseUrl,
    WRENN_HOST_AGENT_ADDRESS: platform.host.address,
    WRENN_PROXY_MAX_CONNECTIONS: String(MAX_CONNECTIONS),
  }
  const ours = await wrenn(CONTROL_PLANE, env)
  children.push(ours.child)
  const contenders = new Map([['wrenn', { url: ours.said, pid: ours.child.pid }]])
  if (values.beside !== undefined) {
    const other = await wrenn(values.beside, env)
    children.push(other.child)
    contenders.set('wrenn as built before', { url: other.said, pid: other.child.pid })
  }
  const host = `${new URL(service.said).port}-${id}.localhost`
  await besides(service.said, contenders, host)
  if (Number(values.idle) > 0) await idle(ours, host, Number(values.idle))
  if (Number(values.requests) > 0) await growth(ours, host, Number(values.requests))
}

try {
  const { service, wrenn: url, name } = values
  if (service !== undefined && url !== undefined && name !== undefined)
    await besides(service, new Map([['wrenn', { url, pid: undefined }]]), name)
  else await onThisMachine()
} finally {
  for (const child of children) child.kill()
  await rm(dir, { recursive: true, force: true })
}
