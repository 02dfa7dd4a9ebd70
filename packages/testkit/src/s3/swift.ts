import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { UndoStack } from '@wrenn/base'
import { freePort } from '../free-port.js'
import { Daemons, iniText } from './daemons.js'
import type { S3Server, S3ServerKind } from './s3-server.js'

const PYTHON = '/usr/bin/python3'
const LOOPBACK = '127.0.0.1'
const REGION = 'us-east-1'
const DISK = 'disk'
const SECRET = 'no-secret-at-all-for-tests'
/** Its part of the ring's files has these names. */
const STORES = ['account', 'container', 'object'] as const
const SERVERS = [...STORES, 'proxy'] as const
/** `cache` finds no memcached and does without; each `filter:` is an egg of that name unless the table below says so. */
const PIPELINE = ['catch_errors', 'cache', 'listing_formats', 'bulk', 's3api', 'tempauth', 'copy', 'slo', 'dlo']
const PATIENCE_SEC = 60
const NO_MEMCACHED = `${LOOPBACK}:1`

/** OpenStack's Swift with its S3 API, whole on one machine, which Debian has as packages. */
export const swiftKind: S3ServerKind = { name: 'OpenStack Swift', missing: missingServers(), start: startSwift }

/**
 * All of it in one program, because to start Python and to read Swift takes longest. Its settings are looked for in /etc/swift unless that is
 * said before anything else is read. Each server ends with its starter.
 */
const PROGRAM = `
import ctypes, os, signal, sys
from swift.common import utils
folder, ports = sys.argv[1], dict(pair.split('=') for pair in sys.argv[2:])
utils.set_swift_dir(folder)
from swift.common.ring import RingBuilder
from swift.common.wsgi import run_wsgi
for name in ${JSON.stringify(STORES)}:
    ring = RingBuilder(1, 1, 0)
    ring.add_dev(dict(region=1, zone=1, ip='${LOOPBACK}', port=int(ports[name]), device='${DISK}', weight=1))
    ring.rebalance()
    ring.get_ring().save(os.path.join(folder, name + '.ring.gz'))
starter = os.getpid()
for name in ports:
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() == starter:
            run_wsgi(os.path.join(folder, name + '.conf'), name + '-server')
        os._exit(1)
os.wait()
sys.exit('a server of Swift ended')
`

function missingServers(): string | undefined {
  const missing = SERVERS.map((name) => `swift-${name}-server`).filter((name) => !existsSync(`/usr/bin/${name}`))
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`
}

async function startSwift(): Promise<S3Server> {
  await using undo = new UndoStack()
  // Objects have extended attributes, which not every file system in memory has.
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-swift-'))
  await undo.defer(() => rm(dir, { recursive: true, force: true }))
  const daemons = new Daemons(dir)
  await undo.defer(() => daemons[Symbol.asyncDispose]())
  await mkdir(join(dir, 'devices', DISK), { recursive: true })
  const ports: string[] = []
  const addresses: string[] = []
  for (const name of SERVERS) {
    const port = await freePort()
    ports.push(`${name}=${port}`)
    addresses.push(`http://${LOOPBACK}:${port}`)
    await writeFile(
      join(dir, `${name}.conf`),
      iniText(name === 'proxy' ? proxySettings(dir, port) : storeSettings(dir, name, port)),
    )
  }
  const hash = { swift_hash_path_prefix: 'of', swift_hash_path_suffix: 'tests' }
  await writeFile(join(dir, 'swift.conf'), iniText({ 'swift-hash': hash }))
  daemons.start('swift', PYTHON, ['-c', PROGRAM, dir, ...ports])
  // All of them: the proxy believes for a minute that a store is away that it has once not found.
  for (const address of addresses) await daemons.answer(`${address}/info`, 'Swift')
  const started = undo.move()
  return {
    endpoint: addresses.at(-1) ?? '',
    region: REGION,
    accessKeyId: 'test:tester',
    secretAccessKey: SECRET,
    [Symbol.asyncDispose]: () => started[Symbol.asyncDispose](),
  }
}

function everyServer(dir: string, port: number) {
  // Without workers a server is one process; it looks its user up to become it.
  return {
    bind_ip: LOOPBACK,
    bind_port: port,
    workers: 0,
    swift_dir: dir,
    user: userInfo().username,
    log_level: 'WARNING',
    // On a busy machine: by default a connection has half a second and a listing's update one. The update that takes longer is left to a
    // daemon that does not run here, and the listing lacks the object for good.
    conn_timeout: PATIENCE_SEC,
    node_timeout: PATIENCE_SEC,
    container_update_timeout: PATIENCE_SEC,
    // Nor is a store left alone for a minute because of some that took long.
    error_suppression_interval: 0,
  }
}

function storeSettings(dir: string, name: string, port: number) {
  return {
    DEFAULT: { ...everyServer(dir, port), devices: join(dir, 'devices'), mount_check: false },
    'pipeline:main': { pipeline: `${name}-server` },
    [`app:${name}-server`]: { use: `egg:swift#${name}` },
  }
}

function proxySettings(dir: string, port: number) {
  const filters = PIPELINE.map((name) => [`filter:${name}`, { use: `egg:swift#${name}`, ...filterSettings[name] }])
  return {
    DEFAULT: everyServer(dir, port),
    'pipeline:main': { pipeline: [...PIPELINE, 'proxy-server'].join(' ') },
    'app:proxy-server': { use: 'egg:swift#proxy', account_autocreate: true, allow_account_management: true },
    ...Object.fromEntries(filters),
  }
}

const filterSettings: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  cache: { use: 'egg:swift#memcache', memcache_servers: NO_MEMCACHED },
  s3api: { location: REGION, storage_domain: 'localhost' },
  tempauth: { user_test_tester: `${SECRET} .admin` },
}
