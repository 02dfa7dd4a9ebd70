import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmod,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { noSteps, silentLogger } from '@wrenn/base'
import { TEMPLATE_TAIL_BYTES, templateLabel, templateSeal } from '@wrenn/protocol'
import { tarOf, writeOciLayout } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FetchedImages } from '../src/host/images/oci/fetched-images.js'
import { RegistryRules } from '../src/host/images/oci/rules.js'

const missing = ['skopeo', 'umoci', 'bwrap', 'zstd', 'xz'].filter(
  (tool) => spawnSync(tool, ['--version']).error !== undefined,
)
const reason = process.getuid?.() !== 0 ? 'needs root' : missing.length > 0 ? `needs ${missing.join(', ')}` : ''
const MIB = 2 ** 20

describe.skipIf(reason !== '')(`images of files ${reason}`, () => {
  let scratch: string
  let poolDir: string
  /** One image of two layers. */
  let layout: string
  let sent = 0

  const images = (
    change: Partial<Record<'maxBytes' | 'maxFiles' | 'totalBytes', number>> & { readonly dir?: string } = {},
  ) =>
    new FetchedImages({
      poolDir: change.dir ?? poolDir,
      logger: silentLogger,
      registry: {
        rules: new RegistryRules({ registries: 'none', allowed: [], plain: [] }),
        fetcher: [process.execPath, '/nonexistent'],
        uid: 83_014,
      },
      limits: { maxBytes: change.maxBytes ?? 64 * MIB, maxFiles: change.maxFiles ?? 1_000 },
      totalBytes: change.totalBytes ?? 1024 * MIB,
      keepMs: 3600_000,
      reach: noSteps,
    })
  const importIt = async (
    file: string,
    image?: string,
    store = images(),
    told?: Partial<{ sha256: string; sizeBytes: number }>,
  ) => {
    const content = await readFile(file)
    const sha256 = createHash('sha256').update(content).digest('hex')
    const said: string[] = []
    const found = await store.import({
      ...{ called: 'app.tar', sha256, sizeBytes: content.length, ...told, image },
      bytes: async function* () {
        sent++
        for (let at = 0; at < content.length; at += 100_000) yield content.subarray(at, at + 100_000)
      },
      signal: new AbortController().signal,
      onProgress: (line) => said.push(line),
    })
    return { image: found, said }
  }
  const inside = (path: string, script: string): string =>
    execFileSync('unshare', ['--mount', 'sh', '-c', `mount -o ro,loop "$0" /mnt && cd /mnt && ${script}`, path], {
      encoding: 'utf8',
    })
  const folder = async (name = randomBytes(4).toString('hex')): Promise<string> => {
    const path = join(scratch, name)
    await mkdir(path, { recursive: true })
    return path
  }
  const skopeo = (...words: string[]): void => {
    execFileSync('skopeo', ['--insecure-policy', 'copy', '--quiet', ...words], { stdio: 'pipe' })
  }
  const dockerSave = (name: string, from = layout): string => {
    const path = join(scratch, `${randomBytes(4).toString('hex')}.tar`)
    skopeo(`oci:${from}:image`, `docker-archive:${path}:${name}`)
    return path
  }
  const ociArchive = (from = layout): string => {
    const path = join(scratch, `${randomBytes(4).toString('hex')}.tar`)
    skopeo(`oci:${from}:image`, `oci-archive:${path}:v1`)
    return path
  }
  const tarred = (from: string, member = '.'): string => {
    const path = join(scratch, `${randomBytes(4).toString('hex')}.tar`)
    execFileSync('tar', ['--create', `--file=${path}`, `--directory=${from}`, member])
    return path
  }
  const layoutWith = async (content: string, more: object = {}): Promise<string> => {
    const [root, made] = [await folder(), join(await folder(), 'layout')]
    await writeFile(join(root, 'said'), content)
    await writeOciLayout(made, [{ layers: [tarOf(root)], ...more }])
    return made
  }
  const leftovers = async (dir = poolDir) => await readdir(join(dir, 'layers/fetches'))
  const unusable = (message: string | RegExp) => ({
    code: 'image_not_usable',
    message: expect.stringMatching(message),
  })

  beforeAll(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'wrenn-archives-'))
    await chmod(scratch, 0o755)
    poolDir = await folder('pool')
    const lower = await folder('lower')
    await mkdir(join(lower, 'gone'))
    await writeFile(join(lower, 'gone/file'), 'gone')
    await writeFile(join(lower, 'said'), 'lower')
    execFileSync('sh', ['-c', 'chown 70000:70001 said; chmod 4711 said; mknod null c 1 3'], { cwd: lower })
    const upper = await folder('upper')
    await writeFile(join(upper, '.wh.gone'), '')
    await writeFile(join(upper, 'added'), 'added')
    layout = join(scratch, 'layout')
    const config = { Env: ['COLOUR=red'], User: '1000:1000', WorkingDir: '/srv', Cmd: ['a'] }
    await writeOciLayout(layout, [{ layers: [tarOf(lower), tarOf(upper)], config }])
  })
  afterAll(async () => await rm(scratch, { recursive: true, force: true }))

  const packed = (command: string, tar: string): string => {
    const path = `${tar}.${command}`
    execFileSync('sh', ['-c', `${command} -c < "$1" > "$2"`, 'sh', tar, path])
    return path
  }

  it.each([
    ['of docker save', () => dockerSave('app:2')],
    ['of an OCI layout', () => ociArchive()],
    ['of an OCI layout, packed by hand', () => tarred(layout)],
    ['of gzip', () => packed('gzip', dockerSave('app:2'))],
    ['of zstd', () => packed('zstd', dockerSave('app:2'))],
    ['of xz', () => packed('xz', ociArchive())],
  ])('%s become a base image as their layers and config say', async (_, make) => {
    const { image } = await importIt(make())
    const said = {
      env: ['COLOUR=red'],
      user: '1000:1000',
      workingDir: '/srv',
      entrypoint: [],
      command: ['a'],
      ports: [],
    }
    expect(image.config).toEqual(said)
    const script = "ls | grep -v lost+found; stat -c '%a %u:%g' said; stat -c '%F %t:%T' null; cat added"
    expect(inside(image.path, script)).toBe('added\nnull\nsaid\n4711 70000:70001\ncharacter special file 1:3\nadded')
    expect(await leftovers()).toEqual([])
  })

  it('come once: a file that was here is known by what it has', async () => {
    const store = images({ dir: await folder('once') })
    const file = dockerSave('once:1')
    const before = sent
    const [first, second] = await Promise.all([importIt(file, undefined, store), importIt(file, undefined, store)])
    const third = await importIt(file, undefined, store)
    expect(sent - before).toBe(1)
    expect([second.image.name, third.image.name]).toEqual([first.image.name, first.image.name])
    expect(await store.list()).toHaveLength(1)
    expect(await store.prune(() => false)).toEqual([])
  })

  it('of several are chosen by name, and refused with those that there are', async () => {
    const [one, two] = [await layoutWith('one'), await layoutWith('two')]
    const both = join(await folder(), 'both')
    for (const [from, name] of [
      [one, 'app:1'],
      [two, 'app:2'],
    ] as const) {
      skopeo(`oci:${from}:image`, `oci:${both}:${name}`)
    }
    const file = tarred(both)
    await expect(importIt(file)).rejects.toMatchObject(unusable(/app\.tar: it has 2 images.*app:1, app:2/))
    await expect(importIt(file, 'app:3')).rejects.toMatchObject({ code: 'image_not_found' })
    const found = await Promise.all([importIt(file, 'app:1'), importIt(file, 'app:2')])
    expect(found.map(({ image }) => inside(image.path, 'cat said'))).toEqual(['one', 'two'])
  })

  it('that newer engines save are read by their names: docker save and an OCI layout in one', async () => {
    const made = await layoutWith('both')
    const index = JSON.parse(await readFile(join(made, 'index.json'), 'utf8'))
    const manifest = JSON.parse(await readFile(join(made, blobOf(index.manifests[0].digest)), 'utf8'))
    const entry = {
      Config: blobOf(manifest.config.digest),
      RepoTags: ['app:2'],
      Layers: manifest.layers.map(({ digest }: { digest: string }) => blobOf(digest)),
    }
    await writeFile(join(made, 'manifest.json'), JSON.stringify([entry]))
    const path = join(scratch, 'engine.tar')
    execFileSync('tar', ['-cf', path, '-C', made, 'blobs', 'index.json', 'manifest.json', 'oci-layout'])
    const { image } = await importIt(path, 'app:2')
    expect(inside(image.path, 'cat said')).toBe('both')
  })

  it('are refused by what is wrong with them, and leave nothing', async () => {
    const text = join(scratch, 'text')
    await writeFile(text, 'no tar at all')
    await expect(importIt(text)).rejects.toMatchObject(unusable('app.tar: it is neither of docker save'))
    const other = tarred(await folder('other'))
    await expect(importIt(other)).rejects.toMatchObject(unusable('neither of docker save nor an OCI layout'))
    const foreign = dockerSave('foreign:1', await layoutWith('x', { architecture: 's390x' }))
    await expect(importIt(foreign)).rejects.toMatchObject(unusable('linux/s390x'))
    const cut = packed('gzip', dockerSave('cut:1'))
    await truncate(cut, (await stat(cut)).size - 100)
    await expect(importIt(cut)).rejects.toMatchObject(unusable('gzip'))
    const torn = await layoutWith('torn')
    const blobs = join(torn, 'blobs/sha256')
    for (const name of await readdir(blobs)) {
      const bytes = await readFile(join(blobs, name))
      if (bytes[0] === 0x1f) await writeFile(join(blobs, name), Buffer.concat([bytes, Buffer.alloc(1)]))
    }
    await expect(importIt(tarred(torn))).rejects.toMatchObject({ code: 'image_not_usable' })
    expect(await leftovers()).toEqual([])
  })

  it('are the bytes that were told, no more and no others', async () => {
    const file = dockerSave('told:1')
    const { size } = await stat(file)
    const other = { code: 'invalid_request', message: expect.stringContaining('not those of its digest') }
    await expect(importIt(file, undefined, images(), { sha256: 'a'.repeat(64) })).rejects.toMatchObject(other)
    await expect(importIt(file, undefined, images(), { sizeBytes: size - 1 })).rejects.toMatchObject(other)
    await expect(importIt(file, undefined, images(), { sizeBytes: size + 1 })).rejects.toMatchObject(other)
    await expect(importIt(file, undefined, images(), { sha256: '../x' })).rejects.toMatchObject({
      code: 'invalid_request',
    })
    expect(await leftovers()).toEqual([])
  })

  it('reach nothing outside of their sandbox, by whatever links they have', async () => {
    const secret = join(scratch, 'secret')
    await mkdir(join(secret, 'sha256'), { recursive: true })
    const made = await layoutWith('stolen')
    const evil = await folder('evil')
    // The blobs lie on this machine, and the file has a link to them.
    execFileSync('cp', ['-a', join(made, 'blobs/sha256'), secret])
    for (const name of ['index.json', 'oci-layout']) await copyFile(join(made, name), join(evil, name))
    await symlink(secret, join(evil, 'blobs'))
    await expect(importIt(tarred(evil))).rejects.toMatchObject({ code: 'image_not_usable' })
    const up = join(scratch, 'up.tar')
    execFileSync('python3', [
      '-c',
      `import io, sys, tarfile
t = tarfile.open(sys.argv[1], 'w')
def add(name, data=b'x', **more):
  i = tarfile.TarInfo(name); i.size = len(data)
  for key, value in more.items(): setattr(i, key, value)
  t.addfile(i, io.BytesIO(data) if i.isreg() else None)
add('../../../escaped'); add('/tmp/escaped')
add('lnk', b'', type=tarfile.SYMTYPE, linkname='/'); add('lnk/tmp/escaped')
t.close()`,
      up,
    ])
    execFileSync('tar', ['--append', `--file=${up}`, '-C', made, 'index.json', 'oci-layout', 'blobs'])
    await importIt(up).catch((error: unknown) => expect(error).toMatchObject({ code: 'image_not_usable' }))
    expect(spawnSync('sh', ['-c', `ls -d /escaped /tmp/escaped ${scratch}/escaped`]).stdout.toString()).toBe('')
    expect(await leftovers()).toEqual([])
  })

  it('are refused with a pipe among their blobs, which nobody waits at', async () => {
    const made = await layoutWith('piped')
    const index = JSON.parse(await readFile(join(made, 'index.json'), 'utf8'))
    const blob = join(made, blobOf(index.manifests[0].digest))
    await rm(blob)
    execFileSync('mkfifo', [blob])
    await expect(importIt(tarred(made))).rejects.toMatchObject(unusable('neither a file nor a folder'))
    expect(await leftovers()).toEqual([])
  })

  it('take no more than they may: of bytes, packed and not, and of files', async () => {
    const zeros = await folder('zeros')
    await writeFile(join(zeros, 'zeros'), '')
    await truncate(join(zeros, 'zeros'), 200 * MIB)
    const bomb = packed('gzip', tarred(zeros))
    await expect(importIt(bomb)).rejects.toMatchObject(unusable('WRENN_IMAGE_MAX_MIB'))
    const many = await folder('many')
    for (let at = 0; at < 1_500; at++) await writeFile(join(many, `f${at}`), '')
    for (const name of ['index.json', 'oci-layout']) await copyFile(join(layout, name), join(many, name))
    await expect(importIt(tarred(many))).rejects.toMatchObject(unusable('WRENN_IMAGE_MAX_FILES'))
    const noise = join(scratch, 'noise')
    await writeFile(noise, randomBytes(3 * MIB))
    const small = images({ maxBytes: 2 * MIB })
    await expect(importIt(noise, undefined, small)).rejects.toMatchObject(unusable('WRENN_IMAGE_MAX_MIB'))
    expect(await leftovers()).toEqual([])
  })

  describe('that are archives of templates', () => {
    const DISK_MIB = 300
    const disk = (): string => join(scratch, 'disk.raw')
    let base: string
    let file: string

    const pack = async (change: object = {}, basePath = base, diskPath = disk()): Promise<string> => {
      const setup = { user: 'user', cwd: '/srv', envs: { COLOUR: 'red' }, startCommand: 'serve', readyCommand: '' }
      const manifest = { name: 'web', vcpus: 2, memoryMib: 512, diskSizeMib: DISK_MIB, synced: true, setup, ...change }
      const path = join(scratch, `${randomBytes(4).toString('hex')}.wrenn`)
      const { signal } = new AbortController()
      await writeFile(path, Readable.from(images().pack({ manifest, basePath, diskPath, signal })))
      return path
    }
    /** Its end made anew: whoever writes such a file can do that. */
    const resealed = async (content: Buffer, label = templateLabel('web')): Promise<string> => {
      const path = join(scratch, `${randomBytes(4).toString('hex')}.wrenn`)
      const sealed = Buffer.concat([content, label])
      await writeFile(path, Buffer.concat([sealed, templateSeal(createHash('sha256').update(sealed).digest())]))
      return path
    }

    beforeAll(async () => {
      const content = randomBytes(3 * MIB)
      base = join(await folder('layers-of-another'), createHash('sha256').update(content).digest('hex'))
      await writeFile(base, content)
      await writeFile(disk(), 'at its begin')
      await truncate(disk(), DISK_MIB * MIB)
      execFileSync('sh', ['-c', `printf 'in its middle' | dd of=${disk()} bs=1M seek=200 conv=notrunc status=none`])
      file = await pack()
    })

    it('come out as they went in, holes kept, and are small', async () => {
      expect((await stat(file)).size).toBeLessThan(4 * MIB)
      const members = execFileSync('sh', ['-c', 'zstd --decompress --stdout < "$0" | tar --list', file], {
        encoding: 'utf8',
      })
      expect(members.trim().split('\n')).toEqual(['wrenn-template.json', 'base.ext4', 'disk.raw'])
      const { image } = await importIt(file)
      expect(image.template).toMatchObject({
        ...{ name: 'web', vcpus: 2, memoryMib: 512, diskSizeMib: DISK_MIB, synced: true },
        setup: { user: 'user', cwd: '/srv', envs: { COLOUR: 'red' }, startCommand: 'serve', readyCommand: '' },
      })
      expect(image.digest).toBe(base.split('/').at(-1))
      const kept = image.diskPath ?? ''
      execFileSync('cmp', [kept, disk()])
      const { size, blocks, mode, uid } = await stat(kept)
      expect([size, blocks * 512 < MIB, mode & 0o777, uid]).toEqual([DISK_MIB * MIB, true, 0o400, 0])
      expect(await leftovers()).toEqual([])
      expect((await images().find(image.name))?.diskPath).toBe(kept)
      expect((await importIt(file)).said).toEqual([])
    })

    it('go with their disks when nobody has used them for long, though their base image is needed', async () => {
      const store = images({ dir: await folder('disks') })
      const { image } = await importIt(file, undefined, store)
      expect(await store.prune((digest) => digest === image.digest)).toEqual([])
      const old = new Date(Date.now() - 2 * 3600_000)
      await utimes(join(scratch, 'disks/layers/index', `${image.name}.json`), old, old)
      expect(await store.prune((digest) => digest === image.digest)).toEqual([image.name])
      expect(await readdir(join(scratch, 'disks/layers/disks'))).toEqual([])
      await stat(image.path)
      await writeFile(join(scratch, 'disks/layers/disks/oci-left.raw'), '')
      await store.sweep()
      expect(await readdir(join(scratch, 'disks/layers/disks'))).toEqual([])
    })

    it('are refused by what their holes seem to be, before anybody reads these', async () => {
      const huge = join(await folder('huge'), 'c'.repeat(64))
      await writeFile(huge, '')
      await truncate(huge, 2 ** 41)
      const found = importIt(await pack({}, huge))
      await expect(found).rejects.toMatchObject(unusable('its base image has 2097152 MiB.*WRENN_IMAGE_MAX_MIB'))
      expect(await leftovers()).toEqual([])
    })

    it('that could never have room make nothing give way; their disks count', async () => {
      const dir = await folder('total')
      const { image } = await importIt(dockerSave('here:1'), undefined, images({ dir }))
      const removed: string[] = []
      const uses = { layers: async () => new Set<string>(), onRemoved: async (name: string) => void removed.push(name) }
      const age = async (name: string, at = new Date(0)): Promise<void> =>
        await utimes(join(dir, 'layers/index', `${name}.json`), at, at)
      await age(image.name)
      const small = images({ dir, totalBytes: 2 * MIB })
      small.attach(uses)
      await expect(importIt(file, undefined, small)).rejects.toMatchObject({ code: 'disk_full' })
      expect(removed).toEqual([])
      // Its name is another for each such file, and its base image the same for all.
      const written = join(dir, 'written')
      await writeFile(written, randomBytes(20 * MIB))
      await truncate(written, DISK_MIB * MIB)
      const large = async (at: number): Promise<string> => await pack({ name: `large-${at}` }, base, written)
      const roomy = images({ dir, totalBytes: image.sizeBytes + 50 * MIB })
      roomy.attach(uses)
      const first = await importIt(await large(1), undefined, roomy)
      await importIt(await large(2), undefined, roomy)
      await age(first.image.name)
      await age(image.name, new Date())
      await importIt(await large(3), undefined, roomy)
      expect(removed).toEqual([first.image.name])
    })

    it('are not there without their disks as they were, and leave none where they fail', async () => {
      const dir = await folder('torn')
      const store = images({ dir })
      const { image } = await importIt(file, undefined, store)
      const manifest = (image.diskPath ?? '').replace(/raw$/, 'json')
      await truncate(image.diskPath ?? '', 0)
      expect(await store.find(image.name)).toBeUndefined()
      expect((await stat((await importIt(file, undefined, store)).image.diskPath ?? '')).size).toBe(DISK_MIB * MIB)
      await writeFile(manifest, '{')
      expect(await store.find(image.name)).toBeUndefined()
      const { image: again } = await importIt(file, undefined, store)
      expect(await store.find(again.name)).toBeDefined()
      // Where a folder is to be while a layer is taken in.
      const failing = images({ dir: await folder('failing') })
      await folder('failing/layers')
      await writeFile(join(scratch, 'failing/layers/scratch'), '')
      await expect(importIt(file, undefined, failing)).rejects.toThrow()
      expect(await readdir(join(scratch, 'failing/layers/disks'))).toEqual([])
    })

    it('are refused with any byte of them flipped', async () => {
      const whole = await readFile(file)
      for (const at of [0, 5, 1_000, whole.length - 1_080, whole.length - 1_000, whole.length - 41, whole.length - 1]) {
        const damaged = Buffer.from(whole)
        damaged[at] = (damaged[at] ?? 0) ^ 1
        const path = join(scratch, 'damaged.wrenn')
        await writeFile(path, damaged)
        await expect(importIt(path), String(at)).rejects.toMatchObject({ code: 'image_not_usable' })
      }
      expect(await leftovers()).toEqual([])
    })

    it('are refused that are of another version, say what is not so, or hold something else, however well they are sealed', async () => {
      const content = (await readFile(file)).subarray(0, -TEMPLATE_TAIL_BYTES)
      const newer = Buffer.from(templateLabel('web'))
      newer[newer.indexOf('"version":1') + 10] = '2'.charCodeAt(0)
      await expect(importIt(await resealed(content, newer))).rejects.toMatchObject(unusable('archive of version 2'))
      await expect(importIt(await pack({ diskSizeMib: DISK_MIB + 1 }))).rejects.toMatchObject(
        unusable('its disk is not'),
      )
      await expect(importIt(await pack({ vcpus: -1 }))).rejects.toMatchObject(unusable('not as it should be'))
      await expect(importIt(await pack({ memoryMib: 64 }))).rejects.toMatchObject(unusable('not as it should be'))
      const renamed = join(await folder('renamed'), 'b'.repeat(64))
      await copyFile(base, renamed)
      const other = await pack({}, renamed)
      await expect(importIt(other)).rejects.toMatchObject(unusable('its base image does not have the digest'))
      await expect(importIt(file, 'web:1')).rejects.toMatchObject({ code: 'image_not_found' })
      const links = await folder('links')
      for (const name of ['wrenn-template.json', 'base.ext4', 'disk.raw'])
        await symlink('/etc/passwd', join(links, name))
      const linked = execFileSync('sh', ['-c', 'tar -C "$0" -c . --transform "s,^./,,"| zstd -q', links])
      await expect(importIt(await resealed(linked))).rejects.toMatchObject({ code: 'image_not_usable' })
      await expect(importIt(await resealed(Buffer.from('nothing of zstd')))).rejects.toMatchObject({
        code: 'image_not_usable',
      })
      expect(await leftovers()).toEqual([])
    })
  })

  it('end with who asks for them, also while no byte comes', async () => {
    const abort = new AbortController()
    const bytes = async function* () {
      yield new Uint8Array(10)
      setImmediate(() => abort.abort(new Error('given up')))
      yield await new Promise<Uint8Array>(() => {})
    }
    const wish = { called: 'a', sha256: 'b'.repeat(64), sizeBytes: 100, bytes, onProgress: () => {} }
    await expect(images().import({ ...wish, signal: abort.signal })).rejects.toThrow('given up')
    expect(await leftovers()).toEqual([])
  })

  it('end with who asks for them', async () => {
    const abort = new AbortController()
    const bytes = async function* () {
      yield new Uint8Array(10)
      abort.abort(new Error('given up'))
      yield new Uint8Array(10)
    }
    const wish = {
      called: 'a',
      sha256: 'b'.repeat(64),
      sizeBytes: 100,
      bytes,
      signal: abort.signal,
      onProgress: () => {},
    }
    await expect(images().import(wish)).rejects.toThrow('given up')
    expect(await leftovers()).toEqual([])
  })
})

function blobOf(digest: string): string {
  return digest.replace('sha256:', 'blobs/sha256/')
}
