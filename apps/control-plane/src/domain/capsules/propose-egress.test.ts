import { create, type MessageInitShape } from '@bufbuild/protobuf'
import { type Destination, DestinationSchema } from '@wrenn/protocol/host'
import { describe, expect, it } from 'vitest'
import { toLearned } from './propose-egress.js'

const used = (what: MessageInitShape<typeof DestinationSchema>): Destination =>
  create(DestinationSchema, { protocol: 'tcp', address: '203.0.113.9', port: 443, count: 1n, ...what })
const byConnection = (name: string) => used({ name, namedBy: 'connection' })

describe('the policy that is proposed', () => {
  it('has each name that connections said, and the addresses of what said none', () => {
    const { proposal, complete } = toLearned(
      [
        byConnection('pypi.org'),
        byConnection('files.pythonhosted.org'),
        byConnection('pypi.org'),
        used({ port: 22, name: 'github.com', namedBy: 'lookup', address: '198.51.100.20' }),
        used({ port: 5432, address: '10.1.2.3' }),
        used({ protocol: 'icmp', port: 0, address: '9.9.9.9' }),
      ],
      true,
    )
    const names = ['files.pythonhosted.org', 'github.com', 'pypi.org']
    expect(proposal).toEqual({ internet: false, allow: [...names, '9.9.9.9', '10.1.2.3', '198.51.100.20'], deny: [] })
    expect(complete).toBe(true)
  })

  it('has no address for QUIC to a name, whose clients come by TCP', () => {
    const { proposal } = toLearned([used({ protocol: 'udp', name: 'cdn.example', namedBy: 'lookup' })], true)
    expect(proposal.allow).toEqual(['cdn.example'])
  })

  it('has an address where the name is none that a policy takes', () => {
    expect(toLearned([byConnection('intranet')], true).proposal.allow).toEqual(['203.0.113.9'])
  })

  it('says when it has not room for all, or not all is known', () => {
    const many = Array.from({ length: 257 }, (_, index) => byConnection(`n${index}.example`))
    const cut = toLearned(many, true)
    expect([cut.complete, cut.proposal.allow.length, cut.destinations.length]).toEqual([false, 256, 257])
    expect(cut.proposal.allow).not.toContain('n256.example')
    expect(toLearned([], false)).toEqual({
      destinations: [],
      complete: false,
      proposal: { internet: false, allow: [], deny: [] },
    })
  })

  it('leaves out what this version knows nothing of', () => {
    expect(toLearned([used({ protocol: 'sctp' })], true).destinations).toEqual([])
    expect(toLearned([used({ name: 'a.example', namedBy: 'stars' })], true).proposal.allow).toEqual(['203.0.113.9'])
  })
})
