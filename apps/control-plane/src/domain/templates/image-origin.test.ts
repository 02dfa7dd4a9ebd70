import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Code, ConnectError } from '@connectrpc/connect'
import { AppError } from '@wrenn/base'
import { environmentBytes, MAX_CAPSULE_ENVIRONMENT_BYTES } from '@wrenn/protocol'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Host } from '../../host/host.js'
import { createHostClient, type HostClient } from '../../host/transport.js'
import type { TemplateBuildRow } from '../../store/schema.js'
import { Keyring } from '../secrets/index.js'
import { BuildFiles } from './build-files.js'
import { beginAsImageSays, envsOf, imageOrigin, sealedImage } from './image-origin.js'

const reference = 'registry.example/a/b:1'
const keyring = new Keyring([Buffer.alloc(32, 1)])
const build = { id: 'bld-1', vcpus: null, memory_mib: null } as TemplateBuildRow
const image = { reference, adopts: 'all' } as const

/** Nothing was uploaded. */
const files = new BuildFiles({ dir: undefined, uploadBytes: 1, filesBytes: 1, freshMs: 1 })

/** What a host answers that has the image. */
function hostThat(fetchImage: HostClient['fetchImage']): Host {
  return new Host({ fetchImage } as HostClient, '')
}

function origin(host: Host, said: string[] = [], asked: Parameters<typeof imageOrigin>[2] = image) {
  const onProgress = (sentence: string) => said.push(sentence)
  return imageOrigin(
    {
      host,
      keyring,
      files,
      logins: { of: async () => undefined },
      diskSizeMib: 1024,
      signal: new AbortController().signal,
      onProgress,
    },
    build,
    asked,
  )
}

function hostWith(said: object): Host {
  const value = {
    template: 'oci-a',
    digest: 'sha256:a',
    env: [],
    user: '',
    workingDir: '',
    entrypoint: [],
    command: [],
    ports: [],
  }
  return hostThat(async function* () {
    yield { event: { case: 'image', value: { ...value, ...said } } } as never
  })
}

describe('the variables of an image', () => {
  it('are those that a capsule can have, the last of a name', () => {
    const { envs, notes } = envsOf(['A=1', 'B==', 'A=2', 'BROKEN', '=x', 'N=a\0b', 'H=\ud800', 'EMPTY='])
    expect(envs).toEqual({ A: '2', B: '=', EMPTY: '' })
    expect(notes.map((note) => /variable (.*) is left out/.exec(note)?.[1])).toEqual([
      'BROKEN',
      'without a name',
      'N',
      'H',
    ])
  })

  it('are told in a few sentences, and taken in a moment, however many an image has', () => {
    const { envs, notes } = envsOf(Array.from({ length: 200_000 }, (_, at) => `V${at}=${at}`))
    expect(Object.keys(envs)).toHaveLength(1000)
    expect(notes).toEqual(["199000 more of the image's variables are left out."])
    const broken = envsOf(Array.from({ length: 1_002 }, (_, at) => `V${at}`)).notes
    expect(broken).toHaveLength(11)
    expect(broken.at(-1)).toBe("992 more of the image's variables are left out.")
  })

  it('fit in a capsule together', () => {
    const large = 'x'.repeat(100 * 1024)
    const { envs, notes } = envsOf([`A=${large}`, `B=${large}`, `C=${large}`, 'D=small', `A=${large}y`, 'B='])
    expect(Object.keys(envs)).toEqual(['A', 'B', 'D'])
    expect(envs).toMatchObject({ A: `${large}y`, B: '', D: 'small' })
    expect(notes).toEqual(["The image's variable C is left out: it cannot be one of a template."])
    const full = envsOf(Array.from({ length: 900 }, (_, at) => `V${at}=${'x'.repeat(1000)}`)).envs
    expect(environmentBytes(full)).toBeLessThanOrEqual(MAX_CAPSULE_ENVIRONMENT_BYTES)
    expect(environmentBytes(full)).toBeGreaterThan(MAX_CAPSULE_ENVIRONMENT_BYTES - 2000)
  })
})

describe('imageOrigin', () => {
  it('takes user and directory as the image says them, for its guest to make sense of', async () => {
    const { user, cwd, isAsImageSays } = await origin(hostWith({ user: 'app:staff', workingDir: 'srv/../opt' }))
    expect({ user, cwd, isAsImageSays }).toEqual({ user: 'app:staff', cwd: '/opt', isAsImageSays: true })
    expect(await origin(hostWith({}))).toMatchObject({ user: 'root', cwd: '/' })
    const ours = await origin(hostWith({ user: 'app', workingDir: '/opt' }), [], { reference, adopts: 'env' })
    expect(ours).toMatchObject({ user: 'user', cwd: '/home/user' })
    expect(ours).not.toHaveProperty('isAsImageSays')
    expect(ours).not.toHaveProperty('container')
  })

  it('refuses a user and a directory that no template can have, with a sentence', async () => {
    for (const [said, text] of [
      [{ user: 'u'.repeat(65) }, 'its user is not usable'],
      [{ user: 'a\0b' }, 'its user is not usable: must not contain a NUL byte.'],
      [{ workingDir: '/a\ud800' }, 'its working directory is not usable: must be valid Unicode.'],
      [{ workingDir: `/${'d'.repeat(4096)}` }, 'its working directory is not usable'],
    ] as const) {
      const code = 'image_not_usable'
      await expect(origin(hostWith(said))).rejects.toMatchObject({ code, message: expect.stringContaining(text) })
      expect(await origin(hostWith(said), [], { reference, adopts: 'env' })).toMatchObject({ user: 'user' })
    }
  })

  it('gives a login to the registry of its image, and opens it for no other', async () => {
    const login = { username: 'robot', password: 'hidden' }
    const asked: unknown[] = []
    const host = hostThat(async function* (request) {
      asked.push(request)
      yield {
        event: { case: 'image', value: { template: 'oci-a', digest: 'a', env: [] } },
      } as never
    })
    const sealed = sealedImage(keyring, build.id, { reference, adopts: 'env', login })
    expect(JSON.stringify(sealed)).not.toContain(login.password)
    await origin(host, [], sealed)
    await origin(host, [], sealedImage(keyring, build.id, { reference, adopts: 'env' }))
    expect(asked).toEqual([{ reference, login }, { reference }])
    await expect(origin(host, [], { ...sealed, reference: 'registry.example/other:1' })).rejects.toThrow()
    await expect(origin(host, [], sealedImage(keyring, 'bld-2', { reference, adopts: 'env', login }))).rejects.toThrow()
    expect(asked).toHaveLength(2)
  })
})

describe('a host agent', () => {
  it('that is older than images says so at once, and is not asked again', async () => {
    const server = createServer((_, response) => response.writeHead(404).end()).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { client, close } = createHostClient(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    const text = 'The host agent is older than the platform, and fetches no images of registries.'
    await expect(origin(new Host(client, ''))).rejects.toMatchObject({ code: 'not_supported', message: text })
    close()
    server.close()
  })

  it('that fails otherwise, or breaks off, is one that does not answer', async () => {
    const gone = hostThat(async function* () {
      yield await Promise.reject(new ConnectError('gone', Code.Unavailable))
    })
    await expect(origin(gone)).rejects.toMatchObject({ code: 'host_unavailable' })
    const said: string[] = []
    const silent = hostThat(async function* () {
      yield { event: { case: 'progress', value: 'Asking' } } as never
    })
    await expect(origin(silent, said)).rejects.toMatchObject({ code: 'host_unavailable' })
    expect(said).toEqual(['Asking'])
  })
})

describe('beginAsImageSays', () => {
  let root: string
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'wrenn-test-image-'))
    await mkdir(join(root, 'etc'))
    await mkdir(join(root, 'there'))
    await writeFile(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n')
    await writeFile(join(root, 'etc/group'), 'root:x:0:\napp:x:1000:app\nstaff:x:50:\n')
  })
  afterAll(async () => await rm(root, { recursive: true, force: true }))

  /** A guest whose root is a folder. */
  const guest = {
    answer: async ({ cmd, args }: { readonly cmd: string; readonly args: readonly string[] }) => {
      const ran = await promisify(execFile)(cmd, [...args], { cwd: root }).catch((error: { stderr: string }) => {
        throw new AppError('build_failed', error.stderr)
      })
      return Buffer.from(ran.stdout)
    },
  }
  const begun = async (user: string, cwd = '/there') =>
    await beginAsImageSays(guest, { user, cwd, envs: { A: '1' } }, reference)

  it('tells commands a user as they are told it', async () => {
    for (const [said, told] of [
      ['app', 'app'],
      ['app:app', 'app'],
      ['app:staff', '1000:50'],
      ['1000', '1000'],
      ['1000:staff', '1000:50'],
      ['77:staff', '77:50'],
      ['1000:50', '1000:50'],
      ['root', 'root'],
    ] as const) {
      expect([said, (await begun(said)).user]).toEqual([said, told])
    }
  })

  it('fails by the name of the image for a user or a group that it does not have', async () => {
    await expect(begun('nobody')).rejects.toThrow(`${reference}: there is no user nobody.`)
    await expect(begun('app:wheel')).rejects.toThrow(`${reference}: there is no group wheel.`)
  })

  it('makes the directory where it is not there', async () => {
    expect(await begun('app', '/srv/a b/c')).toEqual({ user: 'app', cwd: '/srv/a b/c', envs: { A: '1' } })
    expect((await stat(join(root, 'srv/a b/c'))).isDirectory()).toBe(true)
    await expect(begun('app', '/etc/passwd')).rejects.toMatchObject({ code: 'build_failed' })
  })
})
