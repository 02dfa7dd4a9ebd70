import { spawnSync } from 'node:child_process'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { createCpio } from './cpio.js'
import { kernelPayload } from './kernel-image.js'
import { deviceNodes, loadOrder, moduleDependencies } from './kernel-modules.js'

describe('kernel modules', () => {
  it('are ordered with dependencies first, each once, without what is built in', () => {
    const graph: Record<string, readonly string[]> = {
      virtio_net: ['net_failover', 'virtio'],
      net_failover: ['failover'],
      failover: [],
      overlay: [],
    }
    const order = loadOrder(['virtio-net', 'overlay', 'failover', 'ext4'], (name) => graph[name])
    expect(order).toEqual(['failover', 'net_failover', 'virtio_net', 'overlay'])
  })

  it('name their dependencies in .modinfo', () => {
    const content = Buffer.from('code\0license=GPL\0softdep=pre: crc32c-intel\0depends=jbd2,crc-16\0name=x\0')
    expect(moduleDependencies(content)).toEqual(['jbd2', 'crc_16', 'crc32c_intel'])
    expect(moduleDependencies(Buffer.from('\0depends=\0'))).toEqual([])
  })
})

describe('deviceNodes', () => {
  it('makes what depmod lists, folders first, open to everybody where udev does so', () => {
    const devname = '# Device nodes\ntun net/tun c10:200\nloop loop-control c10:237\nnbd nbd0 b43:0\n'
    expect(deviceNodes(devname)).toEqual([
      { kind: 'directory', name: 'net' },
      { kind: 'device', name: 'net/tun', type: 'character', major: 10, minor: 200, mode: 0o666 },
      { kind: 'device', name: 'loop-control', type: 'character', major: 10, minor: 237, mode: 0o600 },
      { kind: 'device', name: 'nbd0', type: 'block', major: 43, minor: 0, mode: 0o600 },
      { kind: 'device', name: 'fuse', major: 10, minor: 229, mode: 0o666 },
    ])
  })

  it('has FUSE once, a module or built in', () => {
    const fuse = { kind: 'device', name: 'fuse', major: 10, minor: 229, mode: 0o666 }
    expect(deviceNodes('fuse fuse c10:229\n')).toEqual([fuse])
    expect(deviceNodes('')).toEqual([fuse])
  })
})

describe('createCpio', () => {
  it('writes an archive that cpio lists, with modes, links and devices', () => {
    const archive = createCpio([
      { kind: 'directory', name: 'bin' },
      { kind: 'file', name: 'bin/tool', content: Buffer.from('hello'), mode: 0o755 },
      { kind: 'symlink', name: 'bin/sh', target: 'tool' },
      { kind: 'device', name: 'console', major: 5, minor: 1 },
      { kind: 'device', name: 'loop0', type: 'block', major: 7, minor: 0, mode: 0o660 },
    ])
    const { stdout } = spawnSync('cpio', ['-itv', '--quiet'], { input: archive, encoding: 'utf8' })
    expect(stdout.trim().split('\n')).toEqual([
      expect.stringMatching(/^drwxr-xr-x .* bin$/),
      expect.stringMatching(/^-rwxr-xr-x .* 5 .* bin\/tool$/),
      expect.stringMatching(/^lrwxrwxrwx .* bin\/sh -> tool$/),
      expect.stringMatching(/^crw------- .* 5, +1 .* console$/),
      expect.stringMatching(/^brw-rw---- .* 7, +0 .* loop0$/),
    ])
  })
})

describe('kernelPayload', () => {
  it('finds the compressed kernel by the boot header', () => {
    const payload = gzipSync('kernel')
    const image = Buffer.concat([Buffer.alloc(1024), payload, Buffer.alloc(64)])
    image.write('HdrS', 0x202, 'latin1')
    image[0x1f1] = 0
    image.writeUInt32LE(512, 0x248)
    image.writeUInt32LE(payload.length, 0x24c)
    expect(kernelPayload(image)).toEqual({ compression: 'gzip', content: payload })
  })

  it('leaves anything else alone', () => {
    expect(kernelPayload(Buffer.alloc(4096))).toBeUndefined()
    expect(kernelPayload(Buffer.from('short'))).toBeUndefined()
  })
})
