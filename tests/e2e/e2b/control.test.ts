import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import {
  clientVersions,
  copiesOf,
  type E2bSandbox,
  type E2bSdk,
  installClients,
  loadClient,
  type Options,
} from '../harness/e2b-clients.js'
import { eventually } from '../harness/wait.js'

/** What published clients do that needs no guest: the same for every version. */
const { platform, api } = usePlatform()
let dir: string
let apiKey: string
let keyId: string | undefined

beforeAll(async () => {
  dir = await installClients()
  // SDKs up to 2.45 refuse keys of another form.
  const made = await api.json<{ id: string; key: string }>('POST', '/v1/api-keys', { json: { format: 'e2b' } })
  apiKey = made.key
  keyId = made.id
})
afterAll(async () => {
  if (keyId !== undefined) await api.json('DELETE', `/v1/api-keys/${keyId}`)
})

describe.each(clientVersions)('%s, unmodified', (version) => {
  let sdk: E2bSdk
  let options: Options
  let sandbox: E2bSandbox

  beforeAll(async () => {
    sdk = await loadClient(dir, version)
    options = { apiKey, apiUrl: platform.url, sandboxUrl: platform.url }
    sandbox = await sdk.Sandbox.create('base', { ...options, metadata: { 'a b': `c&d ${version}` } })
  })
  afterAll(async () => {
    await sandbox?.kill()
  })

  const secondsLeft = async (): Promise<number> => ((await sandbox.getInfo()).endAt.getTime() - Date.now()) / 1000

  it('creates a sandbox, finds it by its metadata, and knows where its ports are', async () => {
    const query = { metadata: { 'a b': `c&d ${version}` }, state: ['running'] }
    const found = await sdk.Sandbox.list({ ...options, query }).nextItems()
    expect(found.map(({ sandboxId }) => sandboxId)).toEqual([sandbox.sandboxId])
    expect(await sandbox.getInfo()).toMatchObject({ state: 'running', metadata: query.metadata })
    expect(sandbox.getHost(8080)).toBe(`8080-${sandbox.sandboxId}.localhost:${platform.port}`)
    expect(new Set((await sandbox.getMetrics()).map(({ cpuCount }) => cpuCount))).toEqual(new Set([1]))
  })

  it('sets how long it lives', async () => {
    await sandbox.setTimeout(200_000)
    expect(await secondsLeft()).toBeLessThanOrEqual(200)
    await sandbox.connect({ timeoutMs: 900_000 })
    expect(await secondsLeft()).toBeGreaterThan(600)
  })

  it('pauses it, is told when it is paused already, and finds it again', async () => {
    expect(await sandbox.pause()).toBe(true)
    expect(await sandbox.pause()).toBe(false)
    expect((await sandbox.getInfo()).state).toBe('paused')
    const again = await sdk.Sandbox.connect(sandbox.sandboxId, { ...options, timeoutMs: 600_000 })
    expect(again.sandboxId).toBe(sandbox.sandboxId)
    expect((await sandbox.getInfo()).state).toBe('running')
  })

  it('forks it', async () => {
    const copies = copiesOf(await sandbox.fork({ count: 2, timeoutMs: 300_000 }))
    try {
      expect(new Set([sandbox, ...copies].map(({ sandboxId }) => sandboxId)).size).toBe(3)
      for (const copy of copies) expect((await copy.getInfo()).state).toBe('running')
    } finally {
      for (const copy of copies) expect(await copy.kill()).toBe(true)
    }
  })

  it('makes a snapshot, starts from it, lists and deletes it', async () => {
    const { snapshotId } = await sandbox.createSnapshot()
    const started = await sdk.Sandbox.create(snapshotId, options)
    expect(await started.kill()).toBe(true)
    const listed = await sdk.Sandbox.listSnapshots({ ...options, sandboxId: sandbox.sandboxId }).nextItems()
    expect(listed.map((snapshot) => snapshot.snapshotId)).toEqual([snapshotId])
    expect(await sdk.Sandbox.deleteSnapshot(snapshotId, options)).toBe(true)
    expect(await sdk.Sandbox.deleteSnapshot(snapshotId, options)).toBe(false)
  })

  it('has its private traffic, its network and its end as it asks for them', async () => {
    const other = await sdk.Sandbox.create('base', {
      ...options,
      allowInternetAccess: false,
      network: { allowPublicTraffic: false, allowOut: ['1.1.1.1'], denyOut: ['0.0.0.0/0'] },
      lifecycle: { onTimeout: 'pause', autoResume: true },
    })
    try {
      expect(other.trafficAccessToken).toMatch(/^wpt_/)
      await other.updateNetwork({ allowOut: ['1.1.1.1'], denyOut: ['0.0.0.0/0'] })
      await other.updateNetwork({})
      await expect(other.updateNetwork({ allowOut: ['*.example'] })).rejects.toThrow('IPv4')
      await other.setTimeout(0)
      const asleep = async () => ((await other.getInfo()).state === 'paused' ? true : undefined)
      await eventually('the sandbox to be paused at its end', asleep)
    } finally {
      await other.kill()
    }
  })

  it('is killed at its end, and is not found then', async () => {
    const other = await sdk.Sandbox.create('base', options)
    await other.setTimeout(0)
    const isGone = async () => (await other.getInfo().catch((error: unknown) => error)) instanceof Error || undefined
    await eventually('the sandbox to be gone', isGone)
    await expect(other.getInfo()).rejects.toBeInstanceOf(sdk.NotFoundError)
    expect(await other.kill()).toBe(false)
    await expect(sdk.Sandbox.connect(other.sandboxId, options)).rejects.toBeInstanceOf(sdk.NotFoundError)
  })

  it('keeps a secret, gives it new values, and shows none', async () => {
    const { Secret } = sdk
    const name = `${version} key`
    const made = await Secret.create(name.toUpperCase(), 'hush-1', { ...options, metadata: { for: version } })
    expect(made).toMatchObject({ name, version: 1, metadata: { for: version } })
    const next = await Secret.update(name, 'hush-2', options)
    expect(next).toMatchObject({ secretId: made.secretId, version: 2, metadata: { for: version } })
    expect(await Secret.getInfo(made.secretId, options)).toEqual(next)
    const pages = Secret.list({ ...options, limit: 1 })
    const listed: unknown[] = []
    while (pages.hasNext) listed.push(...(await pages.nextItems()))
    expect(listed).toContainEqual(next)
    expect(JSON.stringify([made, listed])).not.toContain('hush')
    expect(await Secret.exists(name, options)).toBe(true)
    expect([await Secret.destroy(name, options), await Secret.destroy(name, options)]).toEqual([true, false])
    expect(await Secret.exists(name, options)).toBe(false)
  })

  it('is told what there is not', async () => {
    expect(await sdk.Template.exists('base', options)).toBe(true)
    expect(await sdk.Template.exists('nothing', options)).toBe(false)
    await expect(sdk.Sandbox.create('nothing', options)).rejects.toThrow('There is no template')
    await expect(sdk.Sandbox.create('base', { ...options, volumeMounts: { '/mnt': 'v' } })).rejects.toThrow(
      'volumeMounts is not supported',
    )
    expect(await sdk.Sandbox.kill('nobody', options)).toBe(false)
    const stranger = { ...options, apiKey: `e2b_${'0'.repeat(40)}` }
    await expect(sdk.Sandbox.kill(sandbox.sandboxId, stranger)).rejects.toBeInstanceOf(sdk.AuthenticationError)
  })
})
