import { execFileSync, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, link, mkdir, mkdtemp, readdir, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises'
import { request as askFor, createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { noSteps, parseCidr, silentLogger, waitFor } from '@wrenn/base'
import { registryLogin, TestRegistry, tarOf, writeOciLayout } from '@wrenn/testkit'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FetchedImages } from '../src/host/images/oci/fetched-images.js'
import { RegistryRules, type Resolve } from '../src/host/images/oci/rules.js'
import { sandboxed } from '../src/host/images/oci/sandbox.js'

const missing = ['skopeo', 'umoci', 'bwrap', 'docker-registry'].filter(
  (tool) => spawnSync(tool, ['--version']).error !== undefined,
)
const reason = process.getuid?.() !== 0 ? 'needs root' : missing.length > 0 ? `needs ${missing.join(', ')}` : ''
const MIB = 2 ** 20
const KEEP_MS = 3600_000
/** A registry of its own address: what is on others is somebody else's. */
const ADDRESS = '127.0.0.2'
const source = resolve(import.meta.dirname, '../src/host/images/oci/fetcher.ts')

describe.skipIf(reason !== '')(`images of registries ${reason}`, () => {
  let scratch: string
  let poolDir: string
  let registry: TestRegistry
  let closed: TestRegistry
  let fetcher: string
  let reference: string

  interface Change {
    readonly plain?: readonly string[]
    readonly allowed?: readonly string[]
    readonly registries?: readonly string[]
    readonly maxBytes?: number
    readonly maxFiles?: number
    readonly totalBytes?: number
    readonly dir?: string
    readonly resolve?: Resolve
  }

  const images = ({
    plain,
    allowed = [ADDRESS],
    registries = [],
    maxBytes = 64 * MIB,
    maxFiles = 1_000,
    totalBytes = 1024 * MIB,
    dir = poolDir,
    resolve: resolveName,
  }: Change = {}) =>
    new FetchedImages({
      poolDir: dir,
      logger: silentLogger,
      registry: {
        rules: new RegistryRules(
          {
            registries,
            allowed: allowed.flatMap((text) => parseCidr(text) ?? []).map((network) => ({ network })),
            plain: plain ?? [registry.authority, closed.authority],
          },
          resolveName,
        ),
        fetcher: [process.execPath, fetcher],
        uid: 83_004,
      },
      limits: { maxBytes, maxFiles },
      totalBytes,
      keepMs: KEEP_MS,
      reach: noSteps,
    })
  const fetchIt = async (
    wanted: string,
    store = images(),
    more: { login?: typeof registryLogin | { username: string; password: string }; signal?: AbortSignal } = {},
  ) => {
    const said: string[] = []
    const signal = more.signal ?? new AbortController().signal
    const image = await store.fetch({
      reference: wanted,
      login: more.login,
      signal,
      onProgress: (line) => said.push(line),
    })
    return { image, said }
  }
  /** What is in an image's layer, told by a shell in it. */
  const inside = (path: string, script: string): string =>
    execFileSync('unshare', ['--mount', 'sh', '-c', `mount -o ro,loop "$0" /mnt && cd /mnt && ${script}`, path], {
      encoding: 'utf8',
    })
  const folder = async (name: string): Promise<string> => {
    const path = join(scratch, name)
    await mkdir(path, { recursive: true })
    return path
  }
  const push = async (
    name: string,
    tars: readonly Buffer[],
    compression: 'gzip' | 'zstd' = 'gzip',
  ): Promise<string> => {
    const layout = join(scratch, `layout-${randomBytes(4).toString('hex')}`)
    await writeOciLayout(layout, [{ layers: tars }], compression)
    return registry.push(layout, name)
  }
  const tarWith = (python: string): Buffer =>
    execFileSync(
      'python3',
      [
        '-c',
        `import io, sys, tarfile\nt = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT)\ndef add(name, data=b'x', **more):\n  i = tarfile.TarInfo(name); i.size = len(data)\n  for key, value in more.items(): setattr(i, key, value)\n  t.addfile(i, io.BytesIO(data) if i.isreg() else None)\n${python}\nt.close()`,
      ],
      { maxBuffer: 2 ** 30 },
    )
  const scratchOf = async (dir = poolDir): Promise<readonly string[]> => await readdir(join(dir, 'layers/fetches'))
  const authorityOf = (server: Server, host: string): string => {
    const address = server.address()
    return `${host}:${typeof address === 'object' ? address?.port : ''}`
  }
  const listen = async (server: Server, host: string): Promise<Server> => {
    server.listen(0, host)
    await once(server, 'listening')
    return server
  }
  type Answer = (request: IncomingMessage, response: ServerResponse) => boolean
  /** Another registry that gives out what `registry` has, but for what it answers itself. */
  const inFront = async (answer: Answer): Promise<{ readonly authority: string } & Disposable> => {
    const server = createServer((request, response) => {
      if (answer(request, response)) return
      const { method, url, headers } = request
      const asked = askFor(`http://${registry.authority}${url}`, { method, headers }, (given) => {
        response.writeHead(given.statusCode ?? 502, given.headers)
        given.pipe(response)
      })
      asked.on('error', () => response.destroy())
      request.pipe(asked)
    })
    await listen(server, ADDRESS)
    const end = (): void => {
      server.closeAllConnections()
      server.close()
    }
    return { authority: authorityOf(server, ADDRESS), [Symbol.dispose]: end }
  }
  const isBlob = ({ url = '' }: IncomingMessage): boolean => url.includes('/blobs/')

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'wrenn-oci-'))
    await chmod(scratch, 0o755)
    poolDir = await folder('pool')
    fetcher = join(scratch, 'fetcher.mjs')
    await build({
      entryPoints: [source],
      outfile: fetcher,
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node20',
    })
    registry = await TestRegistry.start({ dir: join(scratch, 'registry'), address: ADDRESS })
    closed = await TestRegistry.start({ dir: join(scratch, 'closed'), address: ADDRESS, needsLogin: true })
    const lower = await folder('lower')
    for (const name of ['bin', 'etc', 'gone', 'opaque']) await mkdir(join(lower, name))
    await writeFile(join(lower, 'bin/tool'), 'tool', { mode: 0o755 })
    await link(join(lower, 'bin/tool'), join(lower, 'bin/same'))
    await symlink('/bin/tool', join(lower, 'bin/absolute'))
    await writeFile(join(lower, 'etc/owned'), 'owned')
    await writeFile(join(lower, 'gone/file'), 'gone')
    await writeFile(join(lower, 'opaque/old'), 'old')
    execFileSync(
      'sh',
      [
        '-c',
        'chown 70000:70001 etc/owned; chmod 4711 etc/owned; setcap cap_net_raw+ep bin/tool 2>/dev/null; setfattr -n user.colour -v red etc/owned; mknod null c 1 3; mkfifo fifo; touch -d @1000000000 etc/owned; touch "$(printf "not-utf8-\\377")"',
      ],
      { cwd: lower },
    )
    const upper = await folder('upper')
    await mkdir(join(upper, 'opaque'))
    await writeFile(join(upper, 'opaque/.wh..wh..opq'), '')
    await writeFile(join(upper, 'opaque/new'), 'new')
    await writeFile(join(upper, '.wh.gone'), '')
    const layout = join(scratch, 'layout')
    const config = {
      Env: ['PATH=/bin', 'COLOUR=red'],
      User: '1000:1000',
      WorkingDir: '/srv',
      Entrypoint: ['/bin/tool'],
      Cmd: ['a'],
    }
    const image = { layers: [tarOf(lower), tarOf(upper)], config }
    await writeOciLayout(layout, [{ ...image, architecture: 'arm64' }, image])
    reference = registry.push(layout, 'some/image:1')
    closed.push(layout, 'private:1')
  })
  afterAll(async () => {
    await registry?.[Symbol.asyncDispose]()
    await closed?.[Symbol.asyncDispose]()
    await rm(scratch, { recursive: true, force: true })
  })

  it('become a base image as their layers say: whiteouts, links, owners, modes, times, devices and attributes', async () => {
    const { image } = await fetchIt(reference)
    expect(image.config).toEqual({
      env: ['PATH=/bin', 'COLOUR=red'],
      user: '1000:1000',
      workingDir: '/srv',
      entrypoint: ['/bin/tool'],
      command: ['a'],
      ports: [],
    })
    expect(
      inside(image.path, 'find . -mindepth 1 -path ./lost+found -prune -o -print | LC_ALL=C sort').trim().split('\n'),
    ).toEqual([
      './bin',
      './bin/absolute',
      './bin/same',
      './bin/tool',
      './etc',
      './etc/owned',
      './fifo',
      './not-utf8-\ufffd',
      './null',
      './opaque',
      './opaque/new',
    ])
    expect(
      inside(
        image.path,
        "stat -c '%a %u:%g %Y' etc/owned; stat -c '%F %t:%T' null fifo; stat -c %h bin/tool; readlink bin/absolute",
      ),
    ).toBe('4711 70000:70001 1000000000\ncharacter special file 1:3\nfifo 0:0\n2\n/bin/tool\n')
    expect(inside(image.path, 'getfattr --only-values -n user.colour etc/owned; getcap bin/same')).toBe(
      'redbin/same cap_net_raw=ep\n',
    )
    expect(await scratchOf()).toEqual([])
  })

  it('are fetched once, and their registry is asked each time', async () => {
    const seen: string[] = []
    using front = await inFront(({ url = '' }) => {
      seen.push(url)
      return false
    })
    const store = images({ dir: await folder('once'), plain: [front.authority] })
    const [first, second] = await Promise.all([
      fetchIt(`${front.authority}/some/image:1`, store),
      fetchIt(`${front.authority}/some/image:1`, store),
    ])
    const blobs = seen.filter((url) => url.includes('/blobs/'))
    expect(blobs.length).toBeGreaterThan(2)
    expect(new Set(blobs).size).toBe(blobs.length)
    const asked = seen.length
    const byDigest = await fetchIt(`${front.authority}/some/image@${first.image.manifest}`, store)
    expect([second.image, byDigest.image].map(({ name }) => name)).toEqual([first.image.name, first.image.name])
    expect(byDigest.said.join('\n')).toContain('is here already')
    expect(seen.length).toBeGreaterThan(asked)
    expect(seen.filter((url) => url.includes('/blobs/'))).toEqual(blobs)
    expect(await store.list()).toHaveLength(1)
  })

  it('are given to nobody who has the manifest alone, from a registry of their own', async () => {
    const { image } = await fetchIt(reference)
    using front = await inFront((request, response) => {
      if (isBlob(request)) response.writeHead(404).end()
      return isBlob(request)
    })
    const store = images({ plain: [front.authority] })
    await expect(fetchIt(`${front.authority}/some/image@${image.manifest}`, store)).rejects.toMatchObject({
      message: expect.stringContaining(`${front.authority}/some/image`),
    })
    await expect(fetchIt(`${front.authority}/some/image:1`, store)).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:image_not_found|registry_unavailable)$/),
    })
  })

  it('are held up by no registry but their own, and who gives up waiting is gone', async () => {
    let isAsked = (): void => {}
    const asked = new Promise<void>((resolveIt) => {
      isAsked = resolveIt
    })
    using front = await inFront((request) => {
      if (isBlob(request)) isAsked()
      return isBlob(request) // and never answers
    })
    const store = images({ dir: await folder('held'), plain: [registry.authority, front.authority] })
    const [first, second] = [new AbortController(), new AbortController()]
    const held = fetchIt(`${front.authority}/some/image:1`, store, { signal: first.signal })
    const heldEnd = expect(held).rejects.toThrow('the first gave up')
    await asked
    const said: string[] = []
    const waiting = store.fetch({
      reference: `${front.authority}/some/image:1`,
      signal: second.signal,
      onProgress: (line) => said.push(line),
    })
    const waitingEnd = expect(waiting).rejects.toThrow('the second gave up')
    expect((await fetchIt(reference, store)).said.join('\n')).toContain('Unpacking')
    second.abort(new Error('the second gave up'))
    await waitingEnd
    first.abort(new Error('the first gave up'))
    await heldEnd
    expect(await scratchOf(join(scratch, 'held'))).toEqual([])
  })

  it('may have layers of zstd', async () => {
    const tar = tarWith("add('file')")
    const { image } = await fetchIt(await push('zstd:1', [tar], 'zstd'))
    expect(inside(image.path, 'cat file')).toBe('x')
  })

  it('are refused with their name: not there, for another machine, no reference', async () => {
    await expect(fetchIt(`${registry.authority}/none:1`)).rejects.toMatchObject({
      code: 'image_not_found',
      message: expect.stringContaining('/none:1'),
    })
    await expect(fetchIt(`${registry.authority}/some/image:2`)).rejects.toMatchObject({ code: 'image_not_found' })
    await expect(fetchIt('No Image')).rejects.toMatchObject({ code: 'invalid_request' })
    const layout = join(scratch, 'foreign')
    await writeOciLayout(layout, [{ layers: [tarWith("add('a')")], architecture: 's390x' }])
    const foreign = registry.push(layout, 'foreign:1')
    await expect(fetchIt(foreign)).rejects.toMatchObject({
      code: 'image_not_usable',
      message: expect.stringMatching(/foreign:1: .*linux\/s390x/),
    })
    expect(await scratchOf()).toEqual([])
  })

  it('need the login that their registry asks for, which no error tells', async () => {
    const locked = `${closed.authority}/private:1`
    await expect(fetchIt(locked)).rejects.toMatchObject({
      code: 'image_not_found',
      message: expect.stringContaining('without a login'),
    })
    const wrong = { username: 'user', password: 'quite another' }
    const error = await fetchIt(locked, images(), { login: wrong }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'image_not_found',
      message: expect.stringContaining('does not let this login'),
    })
    expect(JSON.stringify([error, String(error)])).not.toContain(wrong.password)
    const { image } = await fetchIt(locked, images(), { login: registryLogin })
    expect(image.config.user).toBe('1000:1000')
  })

  it('come from where the operator says alone', async () => {
    const refused = { code: 'registry_refused' }
    await expect(fetchIt(reference, images({ allowed: [] }))).rejects.toMatchObject(refused)
    await expect(fetchIt(reference, images({ plain: [] }))).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('WRENN_REGISTRIES_PLAIN'),
    })
    await expect(fetchIt(reference, images({ registries: ['ghcr.io', '*.example.org'] }))).rejects.toMatchObject(
      refused,
    )
    await expect(fetchIt(reference, images({ registries: [registry.authority] }))).resolves.toBeDefined()
    await expect(fetchIt('10.1.2.3/a')).rejects.toMatchObject(refused)
    await expect(fetchIt('169.254.169.254/a')).rejects.toMatchObject(refused)
    await expect(fetchIt('localhost:1/a')).rejects.toMatchObject(refused)
  })

  describe('of a registry that sends one elsewhere', () => {
    let victim: Server
    let bad: Server
    let hits: string[]
    let answer: (path: string) => { status: number; headers: Record<string, string>; body?: string }

    beforeAll(async () => {
      hits = []
      victim = await listen(
        createServer((request, response) => {
          hits.push(request.url ?? '')
          response.end('{"token": "secret"}')
        }),
        '127.0.0.1',
      )
      bad = await listen(
        createServer((request, response) => {
          const { status, headers, body } = answer(request.url ?? '')
          response.writeHead(status, headers).end(body)
        }),
        ADDRESS,
      )
    })
    afterAll(() => {
      victim.close()
      bad.close()
    })

    /** Go asks no proxy for these: they are the sandbox's own loopback. */
    const ownHosts = (): string[] => [authorityOf(victim, '127.0.0.1'), authorityOf(victim, 'localhost')]
    /** Judged by their addresses: all of them may be spoken to without TLS, and the name leads to the victim. */
    const inward = (): string[] => [authorityOf(victim, 'inner.example'), '169.254.169.254', '10.255.255.1']
    const ask = async () => {
      const authority = authorityOf(bad, ADDRESS)
      const plain = [authority, ...ownHosts(), ...inward()]
      return await fetchIt(`${authority}/a`, images({ plain, resolve: async () => ['127.0.0.1'] }))
    }
    const refused = { code: 'registry_refused', message: expect.stringContaining('has no address that') }
    const unreachable = { code: expect.stringMatching(/^registry_(?:refused|unavailable)$/) }

    async function expectNothingInside(leadTo: (host: string) => void): Promise<void> {
      for (const host of inward()) {
        leadTo(host)
        await expect(ask()).rejects.toMatchObject(refused)
      }
      for (const host of ownHosts()) {
        leadTo(host)
        await expect(ask()).rejects.toMatchObject(unreachable)
      }
      expect(hits).toEqual([])
    }

    it('reaches nothing inside by the address of a token service', async () => {
      const leadTo = (host: string): void => {
        const realm = `Bearer realm="http://${host}/token",service="x"`
        answer = () => ({ status: 401, headers: { 'www-authenticate': realm } })
      }
      await expectNothingInside(leadTo)
    })

    it('reaches nothing inside by a redirect', async () => {
      const leadTo = (host: string): void => {
        answer = (path) =>
          path === '/v2/'
            ? { status: 200, headers: {} }
            : { status: 307, headers: { location: `http://${host}${path}` } }
      }
      await expectNothingInside(leadTo)
    })

    it('is refused itself by a name that leads inside', async () => {
      const inner = authorityOf(victim, 'inner.example')
      const store = images({ plain: [inner], resolve: async () => ['127.0.0.1'] })
      await expect(fetchIt(`${inner}/a`, store)).rejects.toMatchObject(refused)
      expect(hits).toEqual([])
    })

    it('is answered when it never ends what it says', async () => {
      const abort = new AbortController()
      const silent = await listen(
        createServer(() => abort.abort(new Error('given up'))),
        ADDRESS,
      )
      const authority = authorityOf(silent, ADDRESS)
      await expect(fetchIt(`${authority}/a`, images({ plain: [authority] }), { signal: abort.signal })).rejects.toThrow(
        'given up',
      )
      silent.closeAllConnections()
      silent.close()
      expect(await scratchOf()).toEqual([])
      const running = () =>
        spawnSync('pgrep', ['-f', `${fetcher}`])
          .stdout.toString()
          .trim()
      await waitFor(async () => (running() === '' ? true : undefined), {
        timeoutMs: 10_000,
        what: 'the fetcher to end',
      })
    })
  })

  it('write nothing outside of themselves, whatever paths they have', async () => {
    const evil = tarWith(
      "add('../../up')\nadd('a/../../../up')\nadd('/abs')\nadd('lnk', type=tarfile.SYMTYPE, linkname='/work'); add('lnk/through')\nadd('up', type=tarfile.SYMTYPE, linkname='../../../..'); add('up/through')",
    )
    const dir = await folder('evil-pool')
    const pushed = await push('evil:1', [evil])
    const lists = async () =>
      await Promise.all(['/', '/usr', scratch, poolDir].map(async (path) => await readdir(path)))
    const before = await lists()
    const got = await fetchIt(pushed, images({ dir })).catch((error: unknown) => error)
    if (got instanceof Error) expect(got).toMatchObject({ code: 'image_not_usable' })
    expect(await lists()).toEqual(before)
    expect(await readdir(dir)).toEqual(['layers'])
    expect(await scratchOf(dir)).toEqual([])
    const hard = tarWith("add('hard', type=tarfile.LNKTYPE, linkname='../../../../layout/index.json')")
    await expect(fetchIt(await push('hard:1', [hard]), images({ dir }))).rejects.toMatchObject({
      code: 'image_not_usable',
    })
  })

  it('take no more than they may: of bytes, of files', async () => {
    const zeros = await folder('zeros')
    await writeFile(join(zeros, 'zeros'), '')
    await truncate(join(zeros, 'zeros'), 200 * MIB)
    const large = await push('large:1', [tarOf(zeros)])
    await expect(fetchIt(large)).rejects.toMatchObject({
      code: 'image_not_usable',
      message: expect.stringMatching(/large:1: .*WRENN_IMAGE_MAX_MIB/),
    })
    const many = await push('many:1', [tarWith("for n in range(1500): add('f%d' % n, b'')")])
    await expect(fetchIt(many)).rejects.toMatchObject({
      code: 'image_not_usable',
      message: expect.stringContaining('WRENN_IMAGE_MAX_FILES'),
    })
    const noise = await folder('noise')
    await writeFile(join(noise, 'noise'), randomBytes(3 * MIB))
    const heavy = await push('heavy:1', [tarOf(noise)])
    await expect(fetchIt(heavy, images({ maxBytes: 2 * MIB }))).rejects.toMatchObject({
      code: 'image_not_usable',
      message: expect.stringContaining('WRENN_IMAGE_MAX_MIB'),
    })
    expect(await scratchOf()).toEqual([])
  })

  it('see nothing of this machine but programs and authorities, and keep nothing in its memory', () => {
    const script =
      'find /etc -type f; for path in / /dev /etc; do touch $path/x 2>/dev/null && echo $path; done; touch /tmp/x'
    const look = (speaks: boolean): string[] => {
      const [command, ...args] = sandboxed({
        ...{ binds: [], speaks, capabilities: ['CAP_DAC_OVERRIDE'] },
        ...{ fileBytes: MIB, command: ['sh', '-c', script] },
      })
      return execFileSync(command, args, { encoding: 'utf8' }).trim().split('\n').sort()
    }
    expect(look(false)).toEqual([''])
    expect(look(true)).toEqual(['/etc/hosts', '/etc/ssl/certs/ca-certificates.crt'])
  })

  it('make way for others, the one first that has gone unused for longest, and not those that are needed', async () => {
    const dir = await folder('small')
    const [one, two, three] = [
      await push('way:1', [tarWith("add('one')")]),
      await push('way:2', [tarWith("add('two')")]),
      await push('way:3', [tarWith("add('three')")]),
    ]
    const roomy = images({ dir })
    const names = [(await fetchIt(one, roomy)).image, (await fetchIt(two, roomy)).image]
    const totalBytes = names.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
    const store = images({ dir, totalBytes })
    const [gone, needed] = [[] as string[], new Set<string>()]
    const full = { code: 'disk_full', message: expect.stringContaining('WRENN_IMAGES_TOTAL_MIB') }
    await expect(fetchIt(three, store)).rejects.toMatchObject(full)
    store.attach({ layers: async () => needed, onRemoved: async (name) => void gone.push(name) })
    await expect(fetchIt(three, store)).rejects.toMatchObject(full)
    for (const [at, { name }] of names.entries()) {
      const old = new Date(Date.now() - (2 - at) * KEEP_MS)
      await utimes(join(dir, 'layers/index', `${name}.json`), old, old)
    }
    for (const { digest } of names) needed.add(digest)
    await expect(fetchIt(three, store)).rejects.toMatchObject(full)
    needed.clear()
    const { image } = await fetchIt(three, store)
    expect(gone).toEqual([names[0]?.name])
    expect((await store.list()).map(({ name }) => name).sort()).toEqual([image.name, names[1]?.name].sort())
  })

  it('go when nothing boots from them and nobody has used them for long', async () => {
    const store = images()
    const { image } = await fetchIt(reference, store)
    const old = new Date(Date.now() - 2 * KEEP_MS)
    const age = async () => await utimes(join(poolDir, 'layers/index', `${image.name}.json`), old, old)
    expect(await store.prune(() => false)).toEqual([])
    await age()
    expect(await store.prune((digest) => digest === image.digest)).toEqual([])
    expect(await store.prune(() => false)).toContain(image.name)
    expect(await store.find(image.name)).toBeUndefined()
    expect((await fetchIt(reference, store)).said.join('\n')).toContain('Unpacking')
  })
})
