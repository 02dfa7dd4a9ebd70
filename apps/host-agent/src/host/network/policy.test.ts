import { overlaps, parseCidr, silentLogger } from '@wrenn/base'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SlotRange } from './address.js'
import { connectedTo, dropForbidden, forbiddenNetworks } from './connections.js'
import { parseExceptions } from './exceptions.js'
import { formatLabel, parseLabel } from './label.js'
import { privateRanges, resolvePolicy } from './policy.js'
import { exceptionRules, policyRules, rootRules } from './rules.js'

const nowhere = { base: 0, bits: 32 }
const closed = { internet: false, allow: [], deny: [] }

describe('resolvePolicy', () => {
  it('treats a private network as allowed only when it is named itself', () => {
    const resolved = resolvePolicy({ ...closed, allow: ['0.0.0.0/0', '10.0.0.0/7', '10.1.0.0/16', '192.168.1.1'] })
    expect(resolved).toMatchObject({ allow: ['0.0.0.0/0'], allowPrivate: ['10.1.0.0/16', '192.168.1.1'] })
  })

  it('answers names only to those who can connect to something', () => {
    expect(resolvePolicy(closed).names).toBe(false)
    expect(resolvePolicy({ ...closed, allow: ['198.51.100.1'] }).names).toBe(true)
    expect(resolvePolicy({ ...closed, internet: true }).names).toBe(true)
    for (const deny of [['0.0.0.0/0'], ['0.0.0.0/1', '128.0.0.0/1']]) {
      expect(resolvePolicy({ internet: true, allow: [], deny }).names).toBe(false)
      expect(resolvePolicy({ internet: true, allow: ['10.1.0.0/16'], deny }).names).toBe(true)
    }
  })

  it('drops entries that others cover', () => {
    expect(resolvePolicy({ ...closed, deny: ['9.9.9.9', '9.9.9.0/24', '9.9.9.128/25', '8.8.8.8'] }).deny).toEqual([
      '9.9.9.0/24',
      '8.8.8.8',
    ])
  })

  it('marks connections by the policy alone, and never with what the kernel means by no mark', () => {
    const { mark } = resolvePolicy({ ...closed, allow: ['198.51.100.1'] })
    expect(resolvePolicy({ ...closed, allow: ['198.51.100.1'] }).mark).toBe(mark)
    expect(resolvePolicy({ ...closed, deny: ['198.51.100.1'] }).mark).not.toBe(mark)
    expect(mark).toBeGreaterThan(0)
  })

  it('permits by allow before deny before internet, and private addresses only by name', () => {
    const policy = resolvePolicy({ internet: true, allow: ['9.9.9.9', '10.1.0.0/16'], deny: ['9.9.9.0/24'] })
    const addresses = ['9.9.9.9', '9.9.9.8', '8.8.8.8', '10.1.2.3', '10.2.0.1', '169.254.169.254']
    const reached = addresses.filter((address) => forbiddenNetworks(policy, [address]).length === 0)
    expect(reached).toEqual(['9.9.9.9', '8.8.8.8', '10.1.2.3'])
    expect(resolvePolicy(closed).permitted).toEqual([])
  })

  it('names the entry that it refuses', () => {
    for (const entry of [
      'com',
      '*',
      '*.com',
      'example.org/24',
      '::/0',
      '127.0.0.1',
      '169.254.169.254',
      '224.0.0.1',
      '1.1.1.1; flush ruleset',
    ]) {
      expect(() => resolvePolicy({ ...closed, allow: [entry] })).toThrow(entry)
    }
    expect(() => resolvePolicy({ ...closed, deny: Array.from({ length: 1001 }, () => '1.1.1.1') })).toThrow(/1000/)
  })
})

describe('a policy with names', () => {
  const chain = (policy: Parameters<typeof resolvePolicy>[0], name: string): readonly string[] =>
    policyRules(resolvePolicy(policy), true)
      .split('\n')
      .filter((line) => line.startsWith(`add rule inet wrenn ${name} `))
      .map((line) => line.split(' ').slice(5).join(' '))
  const filter = 'meta mark set 2 ct mark set 2 return'

  it('lets no HTTP/3 around the rules of hosts, also not over what is open', () => {
    const open = { internet: true, allow: ['198.51.100.1'], deny: [] }
    const quic = 'meta l4proto udp ct original proto-dst 443 ct original ip daddr != @private counter return'
    expect(chain({ ...open, intercept: true }, 'decide').indexOf(quic)).toBe(0)
    expect(chain({ ...open, learn: true }, 'decide')).not.toContain(quic)
  })

  it('keeps its names apart from its networks, each once, in one form', () => {
    const policy = {
      ...closed,
      allow: ['Example.org', 'example.org.', '1.1.1.1', '*.Example.net'],
      deny: ['bad.example'],
    }
    expect(resolvePolicy(policy)).toMatchObject({
      ...{ allow: ['1.1.1.1'], allowNames: ['example.org', '*.example.net'], denyNames: ['bad.example'], names: true },
      permitted: [{ first: 0x01010101, last: 0x01010101 }],
    })
  })

  it('sends to the filter only what the address does not decide', () => {
    const lists = { allow: ['1.1.1.1', '10.1.0.0/16', 'good.example'], deny: ['9.9.9.9'] }
    const addresses = ['ip daddr 10.1.0.0/16 return', 'ip daddr @private return', 'ip daddr 1.1.1.1 return']
    expect(chain({ internet: false, ...lists }, 'by_name')).toEqual([
      ...addresses,
      `ip daddr 9.9.9.9 ${filter}`,
      filter,
    ])
    expect(chain({ internet: true, ...lists }, 'by_name')).toEqual([
      ...addresses,
      `ip daddr 9.9.9.9 ${filter}`,
      'return',
    ])
    const denying = { ...lists, allow: ['1.1.1.1'], deny: ['9.9.9.9', 'bad.example'] }
    const denied = ['ip daddr @private return', 'ip daddr 1.1.1.1 return', 'ip daddr 9.9.9.9 return']
    expect(chain({ internet: true, ...denying }, 'by_name')).toEqual([...denied, filter])
    expect(chain({ internet: false, ...denying }, 'by_name')).toEqual([...denied, 'return'])
    expect(chain({ internet: true, allow: ['1.1.1.1'], deny: ['9.9.9.9'] }, 'by_name')).toEqual([])
  })

  it('sends to the filter also what it lets through, when it learns, and notes the rest', () => {
    const learning = { internet: true, allow: ['1.1.1.1', '10.1.0.0/16'], deny: ['9.9.9.9'], learn: true }
    const note = (condition: string): readonly string[] => [
      `${condition}ct direction original meta l4proto { tcp, udp } add @used { meta l4proto . ip daddr . th dport }`,
      `${condition}ct direction original meta l4proto icmp add @pinged { ip daddr }`,
    ]
    expect(chain(learning, 'by_name')).toEqual([
      ...['ip daddr 10.1.0.0/16 return', 'ip daddr @private return'],
      ...[`ip daddr 1.1.1.1 ${filter}`, 'ip daddr 9.9.9.9 return', filter],
    ])
    expect(chain({ ...learning, internet: false }, 'by_name').at(-1)).toBe('return')
    const { mark } = resolvePolicy(learning)
    const accept = `counter ct mark set ${mark} accept`
    expect(chain(learning, 'decide')).toEqual([
      `ct mark ${mark} accept`,
      ...note('ct original ip daddr 10.1.0.0/16 '),
      `ct original ip daddr 10.1.0.0/16 ${accept}`,
      'ct original ip daddr @private counter return',
      ...note('ct original ip daddr 1.1.1.1 '),
      `ct original ip daddr 1.1.1.1 ${accept}`,
      'ct original ip daddr 9.9.9.9 counter return',
      ...note(''),
      accept,
    ])
    expect(policyRules(resolvePolicy(learning), false)).not.toContain('flush set')
    expect(policyRules(resolvePolicy({ ...learning, learn: false }), false)).toContain('flush set inet wrenn used')
  })

  it('lets nothing past the filter that may carry a denied name', () => {
    const rules = chain({ internet: true, allow: ['1.1.1.1'], deny: ['bad.example'] }, 'decide')
    expect(rules.slice(-2)).toEqual([
      'meta l4proto != icmp counter return',
      expect.stringMatching(/^counter ct mark set/),
    ])
    expect(rules.findIndex((rule) => rule.includes('1.1.1.1'))).toBeLessThan(rules.length - 2)
  })

  it('has a mark that no connection of the filter has', () => {
    for (let n = 0; n < 50; n += 1) expect(resolvePolicy({ ...closed, allow: [`n${n}.example`] }).mark & 1).toBe(1)
  })
})

describe('rules', () => {
  it('flush only what an earlier policy can have left', () => {
    const policy = resolvePolicy({ internet: true, allow: ['1.1.1.1'], deny: [] })
    expect(policyRules(policy, true)).not.toContain('flush')
    expect(policyRules(policy, false)).toContain('flush chain inet wrenn decide')
    expect(policyRules(policy, true)).toContain(
      `ct original ip daddr 1.1.1.1 counter ct mark set ${policy.mark} accept`,
    )
  })

  it('change the root table only for private networks, and leave alone what stays', () => {
    expect(exceptionRules('wrenn', '10.201.0.6', ['10.1.0.0/16', '10.3.0.0/16'], ['10.3.0.0/16'])).toBe(
      'delete element inet wrenn exceptions { 10.201.0.6 . 10.1.0.0/16 }\n',
    )
    expect(exceptionRules('wrenn', '10.201.0.6', [], [])).toBe('')
    expect(exceptionRules('wrenn', '10.201.0.6', ['10.1.0.0/16'], ['10.2.0.0/16'])).toBe(
      'delete element inet wrenn exceptions { 10.201.0.6 . 10.1.0.0/16 }\nadd element inet wrenn exceptions { 10.201.0.6 . 10.2.0.0/16 }\n',
    )
  })

  it('of two platforms never match each other’s links', () => {
    const range = new SlotRange('10.201.0.0/16')
    expect(rootRules('wrenn', range, { exceptions: new Map(), callerUid: 0 })).toContain('"wrenn-*"')
    expect('wrennb-1'.startsWith('wrenn-')).toBe(false)
  })
})

describe('labels', () => {
  it('read back, also for directories with spaces', () => {
    for (const label of [
      { platform: '/var/lib/wrenn', owner: 'cl-1' },
      { platform: '/home/a b/wrenn', owner: undefined },
    ]) {
      expect(parseLabel(formatLabel(label))).toEqual(label)
    }
    expect(parseLabel('uplink to rack 4')).toBeUndefined()
  })
})

describe('connections that became forbidden', () => {
  const everywhere = Array.from({ length: 4096 }, (_, n) => `${11 + (n % 80)}.7.${n >> 8}.${n & 255}`)

  it('are named by few networks, which have nothing that is permitted and nothing that is kept', () => {
    expect(forbiddenNetworks(resolvePolicy(closed), everywhere)).toEqual(['0.0.0.0/0'])
    const policy = resolvePolicy({ ...closed, allow: ['12.7.0.0/16'] })
    expect(forbiddenNetworks(policy, everywhere)).not.toContain('12.7.0.0/16')
    expect(forbiddenNetworks(policy, ['12.6.0.1', '12.7.0.1', '12.8.0.1'])).toEqual(['12.6.0.0/16', '12.8.0.0/13'])
    expect(forbiddenNetworks(resolvePolicy(closed), ['9.9.9.9'], ['9.9.9.8'])).toEqual(['9.9.9.9'])
    expect(forbiddenNetworks(resolvePolicy({ ...closed, internet: true }), everywhere)).toEqual([])
  })

  it('by the same as the rules, for whatever policy', () => {
    const entry = fc.tuple(fc.nat(3), fc.integer({ min: 0, max: 32 })).map(([n, bits]) => `10.${n}.1.2/${bits}`)
    const policies = fc.record({ internet: fc.boolean(), allow: fc.array(entry), deny: fc.array(entry) })
    const isIn = (address: string, list: readonly string[]) =>
      list.some((each) => overlaps(parseCidr(each) ?? nowhere, parseCidr(address) ?? nowhere))
    const addresses = ['10.0.1.2', '10.1.1.3', '10.3.255.1', '11.0.0.1', '8.8.8.8', '192.168.1.1']
    fc.assert(
      fc.property(policies, fc.constantFrom(...addresses), (policy, address) => {
        const resolved = resolvePolicy(policy)
        const { internet, allow, allowPrivate, deny } = resolved
        const isPublic = isIn(address, allow) || (internet && !isIn(address, deny))
        const isPermitted = isIn(address, privateRanges) ? isIn(address, allowPrivate) : isPublic
        expect(forbiddenNetworks(resolved, [address]).length === 0).toBe(isPermitted)
      }),
    )
  })

  it('that cannot be dropped are no failure of the change that forbids them', async () => {
    const warnings: unknown[] = []
    const logger = { ...silentLogger, warn: (...said: readonly unknown[]) => void warnings.push(said) }
    const tracked = { namespace: 'wrenn-nowhere', slotAddress: '10.201.0.6', dnsAddress: '10.201.0.1' }
    await dropForbidden(tracked, resolvePolicy(closed), logger)
    expect(warnings).toEqual([[expect.anything(), 'network.connections_not_dropped']])
  })
})

describe('what the kernel says', () => {
  it('of tracked connections tells where the guest is connected to, its name server apart', () => {
    const line = (to: string, port: number): string =>
      `tcp      6 431999 ESTABLISHED src=169.254.0.21 dst=${to} sport=40000 dport=${port} src=${to} dst=10.201.0.6 sport=${port} dport=40000 [ASSURED] mark=7 use=1`
    const fromHost =
      'tcp      6 300 ESTABLISHED src=10.201.0.5 dst=10.201.0.6 sport=1 dport=49983 src=169.254.0.21 dst=169.254.0.22 sport=49983 dport=1 [ASSURED] mark=0 use=1'
    const list = [line('8.8.8.8', 443), line('8.8.8.8', 80), line('169.254.0.22', 53), fromHost, line('9.9.9.9', 1)]
    expect(connectedTo(list.join('\n'))).toEqual(['8.8.8.8', '9.9.9.9'])
  })

  it('of exceptions is kept for slots that are kept', () => {
    const elem = [
      { concat: ['10.201.0.6', { prefix: { addr: '10.1.0.0', len: 16 } }] },
      { concat: ['10.201.0.6', '192.168.0.9'] },
      { concat: ['10.201.0.10', '192.168.0.9'] },
    ]
    const text = JSON.stringify({ nftables: [{ metainfo: {} }, { set: { name: 'exceptions', elem } }] })
    expect(parseExceptions(text, ['10.201.0.6'])).toEqual(new Map([['10.201.0.6', ['10.1.0.0/16', '192.168.0.9']]]))
    expect(parseExceptions('{"nftables":[{"set":{"elem":[5]}}]}', ['10.201.0.6'])).toEqual(new Map())
  })
})
