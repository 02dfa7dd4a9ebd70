import { execFileSync } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { registryLogin, TestRegistry, tarOf, writeOciLayout } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { type BuildLogEntry, type E2bSdk, installClients, loadClient } from '../harness/e2b-clients.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'
import { wrenn } from '../harness/platform.js'

/** Templates that begin with images of a registry, of other userlands than ours. */
const { platform } = usePlatform()
const anonymous = new Api(platform, '')
const SIZE = { cpuCount: 1, memoryMB: 512 }
/** The platform of this suite fetches from there, at any port. */
const ADDRESS = '127.0.0.2'
let scratch: string
let open: TestRegistry
let closed: TestRegistry
let apiKey: string
let sdk: E2bSdk
let team: { readonly path: string; readonly session: ReturnType<typeof bearer> }

const options = () => ({ apiKey, apiUrl: platform.url, sandboxUrl: platform.url })

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'wrenn-e2e-images-'))
  const dir = await installClients()
  sdk = await loadClient(dir, 'e2b-2.51')
  await firstAdmin(platform)
  const auth = await logIn(platform, (await addPerson(platform, 'Imager')).email)
  team = { path: `/v1/teams/${auth.team_id}`, session: bearer(auth) }
  apiKey = await newKey({ format: 'e2b' })
  open = await TestRegistry.start({ dir: join(scratch, 'open'), address: ADDRESS })
  closed = await TestRegistry.start({ dir: join(scratch, 'closed'), address: ADDRESS, needsLogin: true })
  await mkdir(join(scratch, 'context'))
  await writeFile(join(scratch, 'context/said.txt'), 'copied\n')
})
afterAll(async () => {
  await open?.[Symbol.asyncDispose]()
  await closed?.[Symbol.asyncDispose]()
  await rm(scratch, { recursive: true, force: true })
  await anonymous.json('DELETE', team.path, team.session)
})

async function newKey(json: object): Promise<string> {
  return (await anonymous.json<{ key: string }>('POST', '/v1/api-keys', { json, ...team.session })).key
}

/** A userland of one static program, as Alpine's: no bash, no C library, nobody but root. */
async function makeBusyboxRoot(): Promise<Buffer> {
  const root = join(scratch, 'busybox')
  for (const folder of ['bin', 'sbin', 'usr/bin', 'etc', 'tmp', 'srv'])
    await mkdir(join(root, folder), { recursive: true })
  await copyFile('/bin/busybox', join(root, 'bin/busybox'))
  for (const path of execFileSync('/bin/busybox', ['--list-full'], { encoding: 'utf8' }).trim().split('\n')) {
    if (/^(?:bin|sbin|usr\/bin)\/[\w[]+$/.test(path) && path !== 'bin/busybox')
      await symlink('/bin/busybox', join(root, path))
  }
  await writeFile(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nother:x:1000:1000::/srv:/bin/sh')
  await writeFile(join(root, 'etc/group'), 'root:x:0:\nother:x:1000:\n')
  return tarOf(root)
}

const busyboxRoot = once(makeBusyboxRoot)

async function busyboxLayout(said: object = {}): Promise<string> {
  const layout = await mkdtemp(join(scratch, 'busybox-layout-'))
  const config = { Env: ['PATH=/usr/bin:/bin:/sbin', 'COLOUR=dark green'], User: 'other', WorkingDir: '/srv', ...said }
  await writeOciLayout(layout, [{ layers: [await busyboxRoot()], config }])
  return layout
}

async function built(image: string, name: string, login?: typeof registryLogin) {
  const said: string[] = []
  const template = sdk
    .Template({ fileContextPath: join(scratch, 'context') })
    .fromImage(image, login)
    .copy('said.txt', 'files/')
    .runCmd('echo "$COLOUR $(id -un)" > ran')
    .runCmd('id -un > /by-root', { user: 'root' })
  const onBuildLogs = ({ message }: BuildLogEntry) => said.push(message)
  await sdk.Template.build(template, name, { ...options(), ...SIZE, onBuildLogs })
  return said.join('\n')
}

/** Made when it is asked for first. */
function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => (made ??= make())
}

async function inSandbox(name: string, line: string): Promise<string> {
  const sandbox = await sdk.Sandbox.create(name, options())
  try {
    return (await sandbox.commands.run(line)).stdout
  } finally {
    await sandbox.kill()
  }
}

const LOOK = 'cat files/said.txt ran /by-root; id -un; pwd; echo "$COLOUR"; stat -c %U files/said.txt'

describe('a template that begins with an image of a registry', () => {
  const fromBusybox = once(async () => {
    const reference = open.push(await busyboxLayout(), 'small/busybox:1')
    return { reference, said: await built(reference, 'from-busybox') }
  })

  it('has a userland without bash, with its variables, the user of the platform and copied files', async () => {
    const { reference, said } = await fromBusybox()
    expect(said).toContain(`FROM ${reference}`)
    expect(said).toContain('Unpacking')
    expect(await inSandbox('from-busybox', LOOK)).toBe(
      'copied\ndark green user\nroot\nuser\n/home/user\ndark green\nuser\n',
    )
  })

  it('has its own people beside the one of the platform, and the names of the platform', async () => {
    await fromBusybox()
    expect(await inSandbox('from-busybox', 'id -u; id -u other; cat /etc/hosts /etc/resolv.conf')).toMatch(
      /^1001\n1000\n127\.0\.0\.1 localhost\n[\s\S]*nameserver 169\.254\.0\.22\n$/,
    )
  })

  it('is not fetched again, and its steps are not done again', async () => {
    const { reference } = await fromBusybox()
    expect(await built(reference, 'from-busybox-again')).toMatch(/is here already[\s\S]*CACHED \[3\/3\]/)
  })

  it('begins in a Dockerfile as whom and where the image says, by name and group, in a directory that it lacks', async () => {
    const layout = await busyboxLayout({ User: 'other:other', WorkingDir: '/not/there' })
    const context = await mkdtemp(join(scratch, 'dockerfile-'))
    const line = 'RUN echo "as $(id -u):$(id -g) in $(pwd)"'
    await writeFile(join(context, 'Dockerfile'), `FROM ${open.push(layout, 'small/other:1')}\n${line}\n`)
    const env = { WRENN_API_KEY: await newKey({}) }
    const { code, stderr } = await wrenn(platform, ['template', 'build', 'from-dockerfile-of-image', context], { env })
    expect([code, stderr]).toEqual([0, expect.stringContaining('as 1000:1000 in /not/there')])
  })

  it('may be a file that the command line sends, alone or for a Dockerfile', async () => {
    const saved = join(scratch, 'saved.tar')
    const source = `oci:${await busyboxLayout({ User: 'other:other' })}:image`
    execFileSync('skopeo', ['--insecure-policy', 'copy', '--quiet', source, `docker-archive:${saved}:app:2`])
    execFileSync('zstd', ['--quiet', saved])
    const env = { WRENN_API_KEY: await newKey({}) }
    const alone = await wrenn(
      platform,
      ['template', 'build', 'from-file', '--image-file', `${saved}.zst`, '--image', 'app:2'],
      { env },
    )
    expect([alone.code, alone.stderr]).toEqual([0, expect.stringContaining('FROM saved.tar.zst')])
    expect(await inSandbox('from-file', 'echo "$COLOUR $(id -un) $(pwd)"')).toBe('dark green other /srv\n')
    const context = await mkdtemp(join(scratch, 'dockerfile-'))
    await writeFile(join(context, 'Dockerfile'), 'FROM app\nRUN echo "as $(id -u):$(id -g)"\n')
    const words = ['template', 'build', 'on-file', context, '--image-file', `app=${saved}.zst`]
    const { code, stderr } = await wrenn(platform, words, { env })
    expect([code, stderr]).toEqual([0, expect.stringContaining('as 1000:1000')])
    const refused = await wrenn(platform, [...words, '--image', 'app:3'], { env })
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('app: it has no image app:3')])
    expect(await readdir(join(platform.dir, 'pool/layers/fetches'))).toEqual([])
  })

  it('needs a login where its registry does, which is told nowhere', async () => {
    const reference = closed.push(await busyboxLayout(), 'private:1')
    await expect(built(reference, 'from-private')).rejects.toThrow(
      /private:1: the registry lets nobody read it without a login/,
    )
    const said = await built(reference, 'from-private', registryLogin)
    expect(said).not.toContain(registryLogin.password)
    expect(await readdir(join(platform.dir, 'pool/layers/fetches'))).toEqual([])
  })

  it('may have nothing but one program', async () => {
    const root = join(scratch, 'alone')
    await mkdir(root)
    await copyFile('/bin/busybox', join(root, 'busybox'))
    const layout = join(scratch, 'alone-layout')
    await writeOciLayout(layout, [{ layers: [tarOf(root)], config: { Entrypoint: ['/busybox'] } }])
    const reference = open.push(layout, 'alone:1')
    await sdk.Template.build(sdk.Template().fromImage(reference).runCmd('/busybox id -un > said'), 'from-alone', {
      ...options(),
      ...SIZE,
    })
    expect(await inSandbox('from-alone', '/busybox cat said')).toBe('user\n')
  })

  it('may have nothing but one program, to which a Dockerfile copies, and whose server answers at once', async () => {
    const root = join(scratch, 'server')
    await mkdir(root)
    await copyFile('/bin/busybox', join(root, 'httpd'))
    const layout = join(scratch, 'server-layout')
    const serve = {
      Entrypoint: ['/httpd', '-f'],
      Cmd: ['-p', '8080', '-h', '/pages'],
      ExposedPorts: { '8080/tcp': {} },
    }
    await writeOciLayout(layout, [{ layers: [tarOf(root)], config: serve }])
    const from = open.push(layout, 'server:1')
    const context = await mkdtemp(join(scratch, 'dockerfile-'))
    await writeFile(join(context, 'index.html'), 'a page\n')
    const lines = [
      `FROM ${from} AS pages`,
      'COPY --chmod=640 *.html /made/',
      `FROM ${from}`,
      'COPY --from=pages made /pages/',
    ]
    await writeFile(join(context, 'Dockerfile'), `${lines.join('\n')}\n`)
    const env = { WRENN_API_KEY: await newKey({}) }
    const { code, stderr } = await wrenn(platform, ['template', 'build', 'server', context], { env })
    expect([code, stderr]).toEqual([0, expect.stringContaining('Starting, as the image says: exec /httpd -f -p 8080')])
    expect(stderr).not.toContain('Nobody listens')
    const ask =
      'exec 3<>/dev/tcp/127.0.0.1/8080; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; while read -r line; do echo "$line"; done <&3'
    expect(await inSandbox('server', ask)).toMatch(/200 OK[\s\S]*a page\n$/)
  })

  it('fails with the name of an image that there is not, or that is inside', async () => {
    await expect(built(`${open.authority}/none:1`, 'from-none')).rejects.toThrow(/none:1: there is no such image/)
    await expect(built('127.0.0.1:5000/inside:1', 'from-inside')).rejects.toThrow(/inside:1: .*has no address/)
    await expect(built('10.0.0.1/inside:1', 'from-inside')).rejects.toThrow(/inside:1: .*has no address/)
  })
})

describe('a template that begins with an image of Debian', () => {
  let reference: string

  beforeAll(async () => {
    const tar = join(scratch, 'debian.tar')
    execFileSync('mmdebstrap', ['--quiet', '--variant=essential', 'bookworm', tar], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const layout = join(scratch, 'debian-layout')
    await writeOciLayout(layout, [{ layers: [await readFile(tar)], config: { Env: ['COLOUR=red'] } }])
    reference = open.push(layout, 'debian:essential')
  })

  it('has all that Debian has', async () => {
    await built(reference, 'from-debian')
    expect(await inSandbox('from-debian', LOOK)).toBe('copied\nred user\nroot\nuser\n/home/user\nred\nuser\n')
    expect(await inSandbox('from-debian', 'dpkg --version | head -1; ls -l /proc/$$/exe')).toContain('dpkg')
  })
})
