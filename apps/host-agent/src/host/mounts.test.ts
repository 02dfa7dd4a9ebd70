import { describe, expect, it } from 'vitest'
import { parseMounts } from './mounts.js'

describe('parseMounts', () => {
  it('reads targets with spaces, optional fields and file system options', () => {
    const text = [
      '36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - btrfs /dev/loop0 rw,errors=continue',
      '28 24 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory',
      '',
    ].join('\n')
    expect(parseMounts(text)).toEqual([
      { target: '/mnt 2', source: '/dev/loop0', type: 'btrfs', options: ['rw', 'errors=continue'] },
      { target: '/sys/fs/cgroup/memory', source: 'cgroup', type: 'cgroup', options: ['rw', 'memory'] },
    ])
  })
})
