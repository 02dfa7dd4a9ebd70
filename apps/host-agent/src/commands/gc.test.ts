import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Code, ConnectError, type ServiceImpl } from '@connectrpc/connect'
import { ERROR_CODE_HEADER } from '@wrenn/protocol'
import type { HostService } from '@wrenn/protocol/host'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startServer } from '../rpc/server.js'
import { collectGarbage } from './gc.js'

let folder: string
let socketPath: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'wrenn-gc-'))
  socketPath = join(folder, 'host-agent.sock')
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

type Collect = ServiceImpl<typeof HostService>['collectGarbage']

async function serve(collectGarbage: Collect): Promise<AsyncDisposable> {
  const service = { collectGarbage } as ServiceImpl<typeof HostService> // the other calls answer `unimplemented`
  return await startServer(service, createServer(), {
    socketPath,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
  })
}

describe('collecting garbage', () => {
  it('asks the agent that runs and gives what it found, in numbers', async () => {
    let wasDryRun: boolean | undefined
    await using _agent = await serve(async ({ dryRun }) => {
      wasDryRun = dryRun
      return { items: [{ kind: 'checkpoint', name: 'cp-1', bytes: 5_000_000_000n }], freedBytes: 5_000_000_000n }
    })
    const items = [{ kind: 'checkpoint', name: 'cp-1', bytes: 5_000_000_000 }]
    expect(await collectGarbage(socketPath, true)).toEqual({ items, freedBytes: 5_000_000_000 })
    expect(wasDryRun).toBe(true)
  })

  it('says to start the platform when none runs', async () => {
    await expect(collectGarbage(socketPath, false)).rejects.toMatchObject({
      code: 'host_unavailable',
      message: expect.stringContaining(socketPath),
    })
  })

  it("keeps the agent's own error", async () => {
    await using _agent = await serve(async () => {
      throw new ConnectError('a restart is under way', Code.FailedPrecondition, { [ERROR_CODE_HEADER]: 'in_use' })
    })
    await expect(collectGarbage(socketPath, false)).rejects.toMatchObject({
      code: 'in_use',
      message: 'a restart is under way',
    })
  })
})
