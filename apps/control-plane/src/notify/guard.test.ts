import { describe, expect, it } from 'vitest'
import { AddressRule, parseNetworks } from './address-rule.js'
import { Guard, type Resolve } from './guard.js'

const rule = (allowed = '', own: readonly string[] = []): AddressRule =>
  new AddressRule(parseNetworks(allowed) ?? [], () => own)

function lookUp(guard: Guard, name: string, isPlain = false): Promise<unknown> {
  return new Promise((resolve, reject) => {
    guard.lookup(isPlain)(name, { all: true }, (error, found) => (error === null ? resolve(found) : reject(error)))
  })
}
const names =
  (...addresses: string[]): Resolve =>
  () =>
    Promise.resolve(addresses)

describe('an address', () => {
  it.each([
    ...['127.0.0.1', '10.1.2.3', '172.16.0.1', '192.168.1.1', '169.254.169.254', '100.64.0.1', '100.100.100.200'],
    ...[
      '0.0.0.0',
      '0.1.2.3',
      '224.0.0.1',
      '255.255.255.255',
      '240.0.0.1',
      '192.0.0.192',
      '198.18.0.1',
      '168.63.129.16',
    ],
    ...['::', '::1', 'fe80::1', 'fe80::1%eth0', 'fc00::1', 'fd00:ec2::254', 'ff02::1', 'fec0::1', '2001:db8::1'],
    // Others within: mapped, compatible, NAT64 of both kinds, 6to4, Teredo.
    ...['::ffff:127.0.0.1', '::ffff:7f00:1', '::127.0.0.1', '::8.8.8.8', '64:ff9b::7f00:1', '64:ff9b::808:808'],
    ...['64:ff9b:1::1', '2002:7f00:1::', '2001:0:7f00:1::1', '100::1', '3fff::1', '5f00::1', 'not an address', ''],
  ])('%s is not public', (address) => {
    expect(rule().isPublic(address)).toBe(false)
  })

  it.each(['8.8.8.8', '1.1.1.1', '::ffff:8.8.8.8', '2606:4700::1111', '[2606:4700::1111]'])('%s is', (address) => {
    expect(rule().isPublic(address)).toBe(true)
  })

  it('is not public when it is one of this machine', () => {
    expect(rule('', ['8.8.8.8', '2606:4700::1']).isPublic('8.8.8.8')).toBe(false)
    expect(rule('', ['8.8.8.8', '2606:4700::1']).isPublic('2606:4700:0::0001')).toBe(false)
  })

  it('may be allowed by the operator, in whatever form it comes', () => {
    const allows = rule('10.1.0.0/16, 127.0.0.1, fd00::/8')
    for (const address of ['10.1.2.3', '127.0.0.1', '::ffff:10.1.2.3', 'fd00::5'])
      expect(allows.isAllowed(address), address).toBe(true)
    for (const address of ['10.2.0.1', '127.0.0.2', 'fc00::1', '8.8.8.8'])
      expect(allows.isAllowed(address), address).toBe(false)
  })
})

describe('the list of networks', () => {
  it('is addresses and networks, and nothing else', () => {
    expect(parseNetworks('')).toEqual([])
    expect(parseNetworks('10.0.0.0/8,::1')).toHaveLength(2)
    for (const text of ['10.0.0.0/33', 'localhost', '10.1', '10.0.0.0/8;::1', '*'])
      expect(parseNetworks(text), text).toBeUndefined()
  })
})

describe('the guard', () => {
  it.each([
    ...[
      'https://127.0.0.1/',
      'https://[::1]/',
      'https://2130706433/',
      'https://0x7f.1/',
      'https://127.1:8443/x',
      'https://0177.0.0.1/',
    ],
    ...[
      'https://[::ffff:127.0.0.1]/',
      'https://[64:ff9b::7f00:1]/',
      'https://169.254.169.254/latest/meta-data',
      'http://8.8.8.8/',
    ],
    ...['http://example.com/'],
  ])('lets %s not be kept', (url) => {
    expect(() => new Guard(rule()).check(new URL(url))).toThrow(expect.objectContaining({ code: 'target_refused' }))
  })

  it('connects to none but the addresses that it has judged, of one look-up', async () => {
    let asked = 0
    const changing: Resolve = () =>
      Promise.resolve(asked++ === 0 ? ['8.8.8.8', '127.0.0.1', '2606:4700::1111', '::1'] : ['127.0.0.1'])
    const guard = new Guard(rule(), changing)
    expect(await lookUp(guard, 'changing.test')).toEqual([
      { address: '8.8.8.8', family: 4 },
      { address: '2606:4700::1111', family: 6 },
    ])
    await expect(lookUp(guard, 'changing.test')).rejects.toMatchObject({ code: 'target_refused' })
    expect(asked).toBe(2)
  })

  it('lets names of the operator through, without TLS to nothing else', async () => {
    const guard = new Guard(rule('10.0.0.0/8'), names('8.8.8.8', '10.1.1.1'))
    expect(await lookUp(guard, 'mixed.test', true)).toEqual([{ address: '10.1.1.1', family: 4 }])
    expect(await lookUp(guard, 'mixed.test')).toHaveLength(2)
    await expect(lookUp(new Guard(rule('10.0.0.0/8'), names('8.8.8.8')), 'public.test', true)).rejects.toMatchObject({
      code: 'target_refused',
    })
    expect(() => guard.check(new URL('http://inside.test/'))).not.toThrow()
  })

  it('says the same of a name that leads inside and of one that is not found', async () => {
    const [inside, missing] = [new Guard(rule(), names('10.0.0.1')), new Guard(rule(), names())]
    for (const isPlain of [false, true]) {
      const said = await Promise.all(
        [inside, missing].map((guard) =>
          lookUp(guard, 'x.test', isPlain).catch(({ code, message }) => ({ code, message })),
        ),
      )
      expect(said[0]).toMatchObject({
        code: 'target_refused',
        message: expect.stringContaining('x.test has no address'),
      })
      expect(said[1]).toEqual(said[0])
    }
  })

  it('finds what this machine calls itself to be itself', async () => {
    await expect(lookUp(new Guard(rule()), 'localhost')).rejects.toMatchObject({ code: 'target_refused' })
  })
})
