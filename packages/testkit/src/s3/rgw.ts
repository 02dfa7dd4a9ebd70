import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { UndoStack, waitFor } from '@wrenn/base'
import { freePort } from '../free-port.js'
import { Daemons, iniText, runTool } from './daemons.js'
import type { S3Server, S3ServerKind } from './s3-server.js'

const PROGRAMS = ['ceph', 'ceph-mon', 'ceph-osd', 'monmaptool', 'radosgw', 'radosgw-admin']
const LOOPBACK = '127.0.0.1'
const MON = 'a'
const OSD = '0'
const GATEWAY = 'client.rgw'
const MONITOR_TIMEOUT_MS = 60_000
/** In memory. */
const STORE_BYTES = 3 * 2 ** 30
const key = { accessKeyId: 'wrenn-test-key', secretAccessKey: 'no secret at all, for tests' } as const

/** Ceph's gateway over a cluster of one monitor and one store in memory, which Debian has as packages. */
export const rgwKind: S3ServerKind = { name: 'Ceph RGW', missing: missingPrograms(), start: startRgw }

function missingPrograms(): string | undefined {
  const missing = PROGRAMS.filter((program) => !existsSync(`/usr/bin/${program}`))
  return missing.length === 0 ? undefined : `not installed: ${missing.join(', ')}`
}

async function startRgw(): Promise<S3Server> {
  await using undo = new UndoStack()
  const dir = await mkdtemp(join(tmpdir(), 'wrenn-test-rgw-'))
  await undo.defer(() => rm(dir, { recursive: true, force: true }))
  const daemons = new Daemons(dir)
  await undo.defer(() => daemons[Symbol.asyncDispose]())
  const [port, monPort] = [await freePort(), await freePort()]
  const cluster = new Cluster(dir, monPort, daemons)
  await cluster.start(port)
  const endpoint = `http://${LOOPBACK}:${port}`
  await daemons.answer(endpoint, 'radosgw')
  const started = undo.move()
  return {
    endpoint,
    region: 'us-east-1',
    ...key,
    [Symbol.asyncDispose]: () => started[Symbol.asyncDispose](),
  }
}

class Cluster {
  readonly #id = randomUUID()
  readonly #dir: string
  readonly #monPort: number
  readonly #daemons: Daemons

  constructor(dir: string, monPort: number, daemons: Daemons) {
    this.#dir = dir
    this.#monPort = monPort
    this.#daemons = daemons
  }

  async start(port: number): Promise<void> {
    for (const folder of ['mon', 'osd', 'run']) await mkdir(join(this.#dir, folder))
    await writeFile(this.#config, this.#configText(port))
    await this.#startMonitor()
    await this.#startStore()
    const user = ['user', 'create', '--uid', 'test', '--display-name', 'test']
    await this.#tool('radosgw-admin', [
      ...['-n', GATEWAY, ...user],
      ...['--access-key', key.accessKeyId, '--secret-key', key.secretAccessKey],
    ])
    this.#daemon('radosgw', ['-n', GATEWAY])
  }

  async #startMonitor(): Promise<void> {
    const map = join(this.#dir, 'monmap')
    const address = `v1:${LOOPBACK}:${this.#monPort}/0`
    await runTool('monmaptool', ['--create', '--fsid', this.#id, '--addv', MON, address, map])
    await this.#tool('ceph-mon', ['--mkfs', '-i', MON, '--monmap', map])
    this.#daemon('ceph-mon', ['-i', MON])
  }

  /** It would enter itself into the map, but not where there is no authentication; so that is done for it. */
  async #startStore(): Promise<void> {
    const id = randomUUID()
    const commands = [`osd new ${id} ${OSD}`, `osd crush add osd.${OSD} 1 root=default host=${LOOPBACK}`, '']
    // A monitor takes connections before it takes commands; each of these may be given twice.
    const entered = () => this.#tool('ceph', ['--connect-timeout', '30'], commands.join('\n')).then(() => true as const)
    const how = { timeoutMs: MONITOR_TIMEOUT_MS, intervalMs: 200, what: 'the monitor to take commands' }
    await waitFor(() => entered().catch(() => undefined), how)
    await this.#tool('ceph-osd', ['-i', OSD, '--mkfs', '--osd-uuid', id])
    this.#daemon('ceph-osd', ['-i', OSD])
  }

  async #tool(program: string, args: readonly string[], input?: string): Promise<void> {
    await runTool(program, ['-c', this.#config, ...args], input)
  }

  /** In the foreground, so that it is ours to end. */
  #daemon(program: string, args: readonly string[]): void {
    this.#daemons.start(program, program, ['-f', '-c', this.#config, ...args])
  }

  get #config(): string {
    return join(this.#dir, 'ceph.conf')
  }

  #configText(port: number): string {
    const at = (name: string) => join(this.#dir, name)
    const auth = Object.fromEntries(['cluster', 'service', 'client'].map((who) => [`auth_${who}_required`, 'none']))
    return iniText({
      global: {
        ...auth,
        fsid: this.#id,
        mon_host: `v1:${LOOPBACK}:${this.#monPort}/0`,
        public_addr: LOOPBACK,
        cluster_addr: LOOPBACK,
        ms_bind_msgr2: false,
        // One copy, on one store, in one group of places.
        osd_pool_default_size: 1,
        osd_pool_default_min_size: 1,
        osd_pool_default_pg_num: 1,
        osd_pool_default_pgp_num: 1,
        osd_pool_default_pg_autoscale_mode: 'off',
        osd_crush_chooseleaf_type: 0,
        mon_allow_pool_size_one: true,
        // Nothing outside the folder.
        run_dir: at('run'),
        crash_dir: at('run'),
        pid_file: at('run/$type.$id.pid'),
        admin_socket: at('run/$type.$id.asok'),
        log_file: at('$type.$id.log'),
      },
      mon: {
        mon_data: at('mon'),
        mon_initial_members: MON,
        mon_cluster_log_to_file: false,
        // A full disk of the machine is no matter of a cluster in memory.
        mon_data_avail_crit: 1,
        mon_data_avail_warn: 1,
        paxos_propose_interval: 0.05,
        paxos_min_wait: 0.01,
      },
      osd: {
        osd_data: at('osd'),
        osd_objectstore: 'memstore',
        memstore_device_bytes: STORE_BYTES,
        osd_crush_update_on_start: false,
        osd_class_update_on_start: false,
      },
      [GATEWAY]: {
        rgw_frontends: `beast endpoint=${LOOPBACK}:${port}`,
        rgw_override_bucket_index_max_shards: 1,
        rgw_run_sync_thread: false,
        rgw_enable_quota_threads: false,
        rgw_enable_usage_log: false,
        // Room is given back while tests run.
        rgw_gc_obj_min_wait: 1,
        rgw_gc_processor_period: 1,
        keyring: '/dev/null',
      },
    })
  }
}
