import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { type BuildLogEntry, clientVersions, type E2bSdk, installClients, loadClient } from '../harness/e2b-clients.js'
import { killAndAwait } from '../harness/kill.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'
import { eventually } from '../harness/wait.js'

/** Templates that published clients build, on guests of the default shape, which are warm. */
const { platform } = usePlatform()
const anonymous = new Api(platform, '')
const SIZE = { cpuCount: 1, memoryMB: 512 }
let dir: string
let context: string
let apiKey: string
/** A team of its own: what builds keep of their steps goes with it. */
let team: { readonly path: string; readonly session: ReturnType<typeof bearer> }

beforeAll(async () => {
  dir = await installClients()
  context = await mkdtemp(join(tmpdir(), 'wrenn-e2e-context-'))
  await writeFile(join(context, 'app.py'), 'print(6 * 7)\n')
  await firstAdmin(platform)
  const auth = await logIn(platform, (await addPerson(platform, 'Builder')).email)
  team = { path: `/v1/teams/${auth.team_id}`, session: bearer(auth) }
  const asked = { json: { format: 'e2b' }, ...team.session }
  apiKey = (await anonymous.json<{ key: string }>('POST', '/v1/api-keys', asked)).key
})
afterAll(async () => {
  await rm(context, { recursive: true, force: true })
  await anonymous.json('DELETE', team.path, team.session)
})

const options = () => ({ apiKey, apiUrl: platform.url, sandboxUrl: platform.url })

/** Builds and says what the build said. */
async function build(sdk: E2bSdk, template: unknown, name: string): Promise<string[]> {
  const said: string[] = []
  const onBuildLogs = ({ message }: BuildLogEntry) => said.push(message)
  await sdk.Template.build(template, name, { ...options(), ...SIZE, onBuildLogs })
  return said
}

async function inSandbox(sdk: E2bSdk, name: string, line: string): Promise<string> {
  const sandbox = await sdk.Sandbox.create(name, options())
  try {
    return (await sandbox.commands.run(line)).stdout
  } finally {
    await sandbox.kill()
  }
}

describe.each(clientVersions)('%s, unmodified', (version) => {
  const name = `built-${version.replaceAll('.', '-')}`
  let sdk: E2bSdk

  beforeAll(async () => {
    sdk = await loadClient(dir, version)
  })
  afterAll(async () => {
    for (const one of [name, `${name}-more`, `${name}-killed`]) await sdk.Sandbox.deleteSnapshot(one, options())
  })

  /** Commands, files, environment, directory and user, and a service that runs. */
  const whole = () =>
    sdk
      .Template({ fileContextPath: context })
      .fromBaseImage()
      .setEnvs({ GREETING: 'hello there' })
      .setWorkdir('/srv/app')
      .copy('app.py', 'bin/')
      .runCmd(`echo "$GREETING ${version}" > said && python3 bin/app.py | tee answer`)
      .runCmd('touch /etc/by-root', { user: 'root' })
      .setUser('root')
      .runCmd('id -un > /srv/app/who')
      .setUser('user')
      .setStartCmd('python3 -m http.server 8080', 'curl --silent --fail http://127.0.0.1:8080/answer')

  it('builds a template, says what its steps print, and creates sandboxes of it in which its service runs', async () => {
    expect(await sdk.Template.exists(name, options())).toBe(false)
    const said = await build(sdk, whole(), name)
    expect(said).toContain('42')
    expect(await sdk.Template.exists(name, options())).toBe(true)
    const line =
      'echo $GREETING; pwd; id -un; cat said answer who; curl --silent http://127.0.0.1:8080/answer; stat -c %U /etc/by-root bin/app.py'
    const expected = `hello there\n/srv/app\nuser\nhello there ${version}\n42\nroot\n42\nroot\nuser\n`
    expect(await inSandbox(sdk, name, line)).toBe(expected)
  })

  it('builds it again from what was kept, and anew where it is told to, while a tag keeps the one before', async () => {
    const cached = (lines: readonly string[]) => lines.filter((line) => line.startsWith('CACHED')).length
    const again = await build(sdk, whole(), name)
    expect(cached(again), again.join('\n')).toBe(7)
    await sdk.Template.assignTags(name, ['first', 'stable'], options())
    const anew = sdk.Template({ fileContextPath: context }).fromBaseImage().skipCache().runCmd('date +%N > stamp')
    expect(cached(await build(sdk, anew, name))).toBe(0)
    const look = 'ls stamp /srv/app/answer 2>/dev/null || true'
    expect(await inSandbox(sdk, name, look)).toBe('stamp\n')
    expect(await inSandbox(sdk, `${name}:stable`, look)).toBe('/srv/app/answer\n')
    const tags = await sdk.Template.getTags(name, options())
    expect(tags.map(({ tag }) => tag)).toEqual(['default', 'first', 'stable'])
    expect(new Set(tags.map(({ buildId }) => buildId)).size).toBe(2)
    await sdk.Template.removeTags(name, ['first', 'stable'], options())
    expect(await sdk.Template.exists(`${name}:stable`, options())).toBe(false)
  })

  it('is told which step failed, and what that printed', async () => {
    const failing = sdk.Template().fromBaseImage().runCmd('true').runCmd('echo on the way; exit 5')
    const said: string[] = []
    const onBuildLogs = ({ message }: BuildLogEntry) => said.push(message)
    const attempt = sdk.Template.build(failing, `${name}-failing`, { ...options(), ...SIZE, onBuildLogs })
    await expect(attempt).rejects.toThrow('exit code 5')
    expect(said).toContain('on the way')
    expect(await sdk.Template.exists(`${name}-failing`, options())).toBe(false)
    const foreign = sdk.Template.build(sdk.Template().fromImage('No Image'), `${name}-foreign`, options())
    await expect(foreign).rejects.toThrow('no image reference')
  })

  it('builds on another template', async () => {
    const more = sdk.Template().fromTemplate(name).runCmd('echo more >> more')
    await build(sdk, more, `${name}-more`)
    expect(await inSandbox(sdk, `${name}-more`, 'cat more; ls stamp')).toBe('more\nstamp\n')
  })

  it('follows a build in the background, and ends it by deleting its template', async () => {
    const slow = sdk.Template().fromBaseImage().runCmd('echo begun; sleep 600')
    const begun = await sdk.Template.buildInBackground(slow, `${name}-slow`, { ...options(), ...SIZE })
    await eventually('the build to be at its step', async () => {
      const { status, logEntries } = await sdk.Template.getBuildStatus(begun, options())
      return status === 'building' && logEntries.some(({ message }) => message === 'begun') ? true : undefined
    })
    expect(await sdk.Sandbox.deleteSnapshot(`${name}-slow`, options())).toBe(true)
    expect((await sdk.Template.getBuildStatus(begun, options())).status).toBe('error')
    expect(await sdk.Sandbox.deleteSnapshot(`${name}-slow`, options())).toBe(false)
    await eventually('its capsule to be gone', async () => {
      return (await new Api(platform, apiKey).list()).some((capsule) => capsule.name === `build-${name}-slow`)
        ? undefined
        : true
    })
  })
})

describe('a build whose control plane is killed', () => {
  it('goes on from the last step whose result was kept', async () => {
    const sdk = await loadClient(dir, 'e2b-2.51')
    const template = sdk
      .Template()
      .fromBaseImage()
      .runCmd('echo $RANDOM > kept')
      .runCmd('[ -e /tmp/again ] || sleep 20; cat kept > done')
    const begun = await sdk.Template.buildInBackground(template, 'built-killed', { ...options(), ...SIZE })
    const status = async () => await sdk.Template.getBuildStatus(begun, options())
    await eventually('the build to be at its last step', async () =>
      (await status()).logEntries.some(({ message }) => message.startsWith('[2/2]')) ? true : undefined,
    )
    await killAndAwait(platform, 'control-plane')
    const done = await eventually('the build to end', async () => {
      const now = await status()
      return now.status === 'ready' || now.status === 'error' ? now : undefined
    })
    const said = done.logEntries.map(({ message }) => message)
    expect([done.status, said]).toEqual(['ready', expect.arrayContaining(['The build was interrupted and goes on.'])])
    expect(said.filter((message) => message.startsWith('CACHED [1/2]'))).toHaveLength(1)
    expect(await inSandbox(sdk, 'built-killed', 'cmp kept done && echo same')).toBe('same\n')
    expect(await sdk.Sandbox.deleteSnapshot('built-killed', options())).toBe(true)
  })
})
