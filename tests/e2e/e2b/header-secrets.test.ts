import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { access, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { installClients, loadClient } from '../harness/e2b-clients.js'
import { type NameServer, startNameServer } from '../harness/name-server.js'
import { wrenn } from '../harness/platform.js'
import { openClient } from '../harness/sdk.js'
import { type Site, startSite } from '../harness/site.js'
import { eventually } from '../harness/wait.js'

const run = promisify(execFile)
const HOST = 'api.wrenn.test'
const { platform, api } = usePlatform()
let names: NameServer
let site: Site
let dir: string
/** Of the file that a token comes from. */
let scratch: string
let apiKey: string
let keyId: string | undefined

beforeAll(async () => {
  dir = await installClients()
  scratch = await mkdtemp(join(tmpdir(), 'wrenn-e2e-token-'))
  names = await startNameServer(platform, 0)
  site = await startSite(platform, HOST)
  const made = await api.json<{ id: string; key: string }>('POST', '/v1/api-keys', { json: { format: 'e2b' } })
  apiKey = made.key
  keyId = made.id
})
afterAll(async () => {
  if (keyId !== undefined) await api.json('DELETE', `/v1/api-keys/${keyId}`)
  await site?.[Symbol.asyncDispose]()
  await names?.[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
})

const newToken = (): string => `Bearer ${randomBytes(24).toString('hex')}`
const asked = async (path: string, header = 'authorization') => (await site.asked(path))?.[header]
const curl = (path: string): string => `curl -sS --max-time 60 https://${HOST}${path}`
const python = (path: string): string =>
  `python3 -c 'import urllib.request; print(urllib.request.urlopen("https://${HOST}${path}", timeout=60).read().decode())'`
/** The guest agent's own Node.js, which each guest has. */
const NODE = '/.wrenn/lib/ld-linux-x86-64.so.2 --library-path /.wrenn/lib /.wrenn/bin/node'
const node = (path: string): string =>
  `${NODE} -e 'fetch("https://${HOST}${path}").then((r) => r.text()).then(console.log, (e) => { console.error(e.cause ?? e); process.exit(1) })'`

/** Files in which a text is, of a capsule (memory and disk), of the platform's logs and journal, and of the database. */
async function filesWith(text: string, capsuleId: string): Promise<readonly string[]> {
  const places = [`pool/capsules/${capsuleId}`, 'journal', 'logs', 'run', 'postgres'].map((name) =>
    join(platform.dir, name),
  )
  for (const place of places) await access(place)
  // What the database renames meanwhile is an error to grep, and not to us.
  const { stdout } = await run('sh', ['-c', 'grep -rslaF -D skip -e "$0" "$@" || :', text, ...places, platform.log])
  return stdout.split('\n').filter((name) => name !== '')
}

describe('a token that is set in requests to a host', () => {
  it('comes to it from curl, Python and Node.js by the published e2b SDK, and is nowhere else', async () => {
    const { Sandbox } = await loadClient(dir, 'e2b-2.51')
    const options = { apiKey, apiUrl: platform.url, sandboxUrl: platform.url }
    const token = newToken()
    const mark = randomBytes(24).toString('hex')
    const rules = { [HOST]: [{ transform: { headers: { Authorization: token } } }] }
    const sandbox = await Sandbox.create('base', { ...options, timeoutMs: 900_000, network: { rules } })
    try {
      for (const [path, command] of [
        ['/curl', curl('/curl')],
        ['/python', python('/python')],
        ['/node', node('/node')],
      ] as const) {
        expect((await sandbox.commands.run(command, { timeoutMs: 120_000, user: 'root' })).stdout.trim()).toBe('hello')
        expect(await asked(path)).toBe(token)
      }
      await sandbox.files.write('/dev/shm/mark', mark)
      expect(JSON.stringify(await sandbox.getInfo())).not.toContain(token)
      await sandbox.pause()
      // What is in the guest's memory is found; the token is not, whole or without its scheme.
      expect(await filesWith(mark, sandbox.sandboxId)).toContainEqual(expect.stringMatching(/\/mem$/))
      expect(await filesWith(token.slice(7), sandbox.sandboxId)).toEqual([])
      const awake = await sandbox.connect({ timeoutMs: 900_000 })
      expect((await awake.commands.run(curl('/awake'), { timeoutMs: 120_000 })).stdout).toBe('hello')
      expect(await asked('/awake')).toBe(token)
      const next = newToken()
      await awake.updateNetwork({ rules: { [HOST]: [{ transform: { headers: { 'X-Key': next } } }] } })
      await awake.commands.run(curl('/changed'), { timeoutMs: 120_000 })
      expect([await asked('/changed', 'x-key'), await asked('/changed')]).toEqual([next, undefined])
    } finally {
      await sandbox.kill()
    }
  })

  it('is the one that a secret of the team has now, which rules refer to by its name', async () => {
    const { Sandbox, Secret } = await loadClient(dir, 'e2b-2.51')
    const options = { apiKey, apiUrl: platform.url, sandboxUrl: platform.url }
    const tokens = [newToken(), newToken()].map((token) => token.slice(7))
    const [first = '', second = ''] = tokens
    const name = `header ${randomBytes(4).toString('hex')}`
    await Secret.create(name, first, options)
    const headers = { Authorization: `Bearer ${Secret.fill(name)}` }
    const rules = { [HOST]: [{ transform: { headers } }] }
    const sandbox = await Sandbox.create('base', { ...options, timeoutMs: 900_000, network: { rules } })
    try {
      await sandbox.commands.run(curl('/named'), { timeoutMs: 120_000 })
      expect(await asked('/named')).toBe(`Bearer ${first}`)
      await Secret.update(name, second, options)
      let asks = 0
      await eventually('the new value to be sent', async () => {
        const path = `/named/${++asks}`
        await sandbox.commands.run(curl(path), { timeoutMs: 120_000 })
        return (await asked(path)) === `Bearer ${second}` || undefined
      })
      for (const token of tokens) expect(await filesWith(token, sandbox.sandboxId)).toEqual([])
    } finally {
      await sandbox.kill()
      await Secret.destroy(name, options)
    }
  })

  it('is the copies’, and goes with the rule, by our SDK and command line', async () => {
    const client = await openClient(platform)
    const token = newToken()
    await using capsule = await client.capsules.create({
      egress: { rules: [{ host: HOST, headers: { authorization: token } }] },
    })
    const [copy] = await capsule.fork()
    if (copy === undefined) throw new Error('There is a copy.')
    await using mine = copy
    expect((await mine.exec(curl('/copy'))).stdout).toBe('hello')
    expect(await asked('/copy')).toBe(token)
    const said = await wrenn(platform, ['egress', 'get', capsule.id])
    expect(said.stdout).toContain(`authorization for ${HOST}`)
    expect(said.stdout).not.toContain(token)
    const next = newToken()
    const file = join(scratch, 'token')
    await writeFile(file, `${next.slice(7)}\n`, { mode: 0o600 })
    const given = `host=${HOST},header=authorization,scheme=Bearer,src=${file}`
    expect((await wrenn(platform, ['egress', 'set', capsule.id, '--header-secret', given])).code).toBe(0)
    await capsule.exec(curl('/set'))
    expect(await asked('/set')).toBe(next)
    await capsule.egress.set({})
    // The site's own certificate is by an authority that no guest knows.
    const { exitCode } = await capsule.exec(curl('/gone'))
    expect([exitCode, await site.asked('/gone')]).toEqual([60, undefined])
  })
})
