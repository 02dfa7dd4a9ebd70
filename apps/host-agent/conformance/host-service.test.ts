import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { join } from 'node:path'
import { createClient } from '@connectrpc/connect'
import { createConnectTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { isErrno, silentLogger } from '@wrenn/base'
import { HostService } from '@wrenn/protocol/host'
import { describeHostService, TestCapsule } from '@wrenn/testkit'
import { plantImages } from '../../../tests/e2e/harness/images.js'
import { claimScratch, killProcesses, removeLeftovers } from '../../../tests/e2e/harness/leftovers.js'
import { runCommandLine } from '../src/commands.js'
import { type HostAgentConfig, readConfig } from '../src/config.js'
import { serve } from '../src/serve.js'

const POOL_SIZE_MIB = 16_384
const SCRATCH_PREFIX = 'wrenn-host-'

/** The real agent on this machine: real images, real VMs, in a directory of its own. WRENN_TEST_DIR keeps the built images. */
describeHostService({
  name: 'the real host agent',
  guest: 'machine',
  timeoutMs: 120_000,
  connect: async () => {
    const given = process.env.WRENN_TEST_DIR
    const dir = given ?? (await mkdtemp(`/var/tmp/${SCRATCH_PREFIX}`))
    await chmod(dir, 0o711) // the guests' own users reach their files by full path
    const config = configOf(dir)
    if (given === undefined) {
      await claimScratch(dir)
      await removeLeftovers(SCRATCH_PREFIX, dir, async (left) => {
        await killProcesses(left)
        await runCommandLine('clean', [], configOf(left), silentLogger)
      })
    }
    const { WRENN_TEST_IMAGES: images } = process.env
    if (images !== undefined && given === undefined) await plantImages(images, dir, POOL_SIZE_MIB)
    const agent = await serve(config, silentLogger)
    const end = async (): Promise<void> => {
      await agent.stop(true)
      if (given !== undefined) return
      await runCommandLine('clean', [], config, silentLogger)
      await rm(dir, { recursive: true, force: true })
    }
    try {
      await agent.ready
    } catch (error) {
      await end()
      throw error
    }
    const manager = new Http2SessionManager('http://host', undefined, {
      createConnection: () => connectSocket(config.socketPath),
    })
    const transport = createConnectTransport({ httpVersion: '2', baseUrl: 'http://host', sessionManager: manager })
    const client = createClient(HostService, transport)
    return {
      client,
      endGuest: async (capsuleId) => {
        // The command ends with its guest.
        await new TestCapsule(client, capsuleId).output('echo c > /proc/sysrq-trigger').catch(() => {})
      },
      namesOf: (id) => namesBelow(dir, ['pool', 'run', 'journal'], id),
      [Symbol.asyncDispose]: async () => {
        manager.abort()
        await end()
      },
    }
  },
})

function configOf(dir: string): HostAgentConfig {
  return readConfig({
    WRENN_DIR: dir,
    WRENN_INSTANCE: 'whost',
    WRENN_NETWORK_CIDR: '10.208.0.0/16',
    WRENN_UID_BASE: '300000',
    WRENN_POOL_SIZE_MIB: String(POOL_SIZE_MIB),
    WRENN_LOG_LEVEL: 'warn',
    WRENN_GUEST_AGENT_DIR: join(import.meta.dirname, '../../guest-agent/dist'),
  })
}

/** Names below `folders` that contain `part`. Other capsules' directories may vanish during the walk. */
async function namesBelow(dir: string, folders: readonly string[], part: string): Promise<string[]> {
  const found: string[] = []
  for (const folder of folders) {
    const path = join(dir, folder)
    const entries = await readdir(path, { withFileTypes: true }).catch((error: unknown) => {
      if (isErrno(error, 'ENOENT')) return []
      throw error
    })
    found.push(...entries.filter(({ name }) => name.includes(part)).map(({ name }) => join(path, name)))
    const below = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
    found.push(...(await namesBelow(path, below, part)))
  }
  return found
}
