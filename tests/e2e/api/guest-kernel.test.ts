import { describe, expect, it } from 'vitest'
import { useCapsule } from '../harness/api.js'

const capsule = useCapsule()

describe("the guest's kernel", () => {
  it.each(['tun', 'fuse', 'wireguard', 'overlay', 'bridge', 'veth', 'nf_tables'])('has %s, by name', async (name) => {
    // What is built in has no entry among the loaded ones.
    const line = `modprobe ${name} && { grep -qw ^${name} /proc/modules || modinfo ${name} | grep -qw builtin; } && echo there`
    expect(await capsule().text(line)).toBe('there')
  })

  it('loads a driver when something asks for it', async () => {
    const loaded = `awk '$1 ~ /^(dummy|macvlan|nft_chain_nat)$/ { print $1 }' /proc/modules | sort`
    expect(await capsule().text(loaded)).toBe('')
    await capsule().text('ip link add d0 type dummy && ip link add m0 link d0 type macvlan')
    expect(await capsule().text(loaded)).toBe('dummy\nmacvlan')
    expect(await capsule().text('ip link del d0; exec 3<>/dev/net/tun && exec 4<>/dev/fuse && echo opened')).toBe(
      'opened',
    )
  })

  it('has programs at new addresses at each start where its owner wants that, whatever it was given', async () => {
    const addresses = 'for i in 1 2; do grep -m 1 libc /proc/self/maps | cut -d- -f1; done | uniq | wc -l'
    const given = await capsule().text('cat /proc/sys/kernel/randomize_va_space')
    expect(await capsule().text(addresses)).toBe(given === '0' ? '1' : '2')
    expect(await capsule().text(`echo 2 >/proc/sys/kernel/randomize_va_space; ${addresses}`)).toBe('2')
  })

  it('has a module folder that can be written to, as for headers or modules of one’s own', async () => {
    const line =
      'd=/lib/modules/$(uname -r) && mkdir $d/updates && cp $d/kernel/drivers/net/dummy.ko* $d/updates && ls $d/updates'
    expect(await capsule().text(line)).toMatch(/^dummy\.ko/)
  })
})

describe("the guest's Python", () => {
  it('makes environments, has what fills them with pip, and pip itself', async () => {
    // Filling one takes minutes of an emulated CPU.
    const line = `python3 -m venv --without-pip /tmp/env && /tmp/env/bin/python -c 'import ensurepip as e; print(e.version())'`
    expect(await capsule().text(line)).toMatch(/^\d+\.\d+/)
    expect(await capsule().text('pip --version')).toMatch(/^pip \d+/)
  })
})
