import { spawnSync } from 'node:child_process'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { createCpio } from './cpio.js'
import { kernelPayload } from './kernel-image.js'
import { loadOrder, moduleDependencies } from './kernel-modules.js'

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

describe('createCpio', () => {
  it('writes an archive that cpio lists, with modes, links and devices', () => {
    const archive = createCpio([
      { kind: 'directory', name: 'bin' },
      { kind: 'file', name: 'bin/tool', content: Buffer.from('hello'), mode: 0o755 },
      { kind: 'symlink', name: 'bin/sh', target: 'tool' },
      { kind: 'device', name: 'console', major: 5, minor: 1 },
    ])
    const { stdout } = spawnSync('cpio', ['-itv', '--quiet'], { input: archive, encoding: 'utf8' })
    expect(stdout.trim().split('\n')).toEqual([
      expect.stringMatching(/^drwxr-xr-x .* bin$/),
      expect.stringMatching(/^-rwxr-xr-x .* 5 .* bin\/tool$/),
      expect.stringMatching(/^lrwxrwxrwx .* bin\/sh -> tool$/),
      expect.stringMatching(/^crw------- .* 5, +1 .* console$/),
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
