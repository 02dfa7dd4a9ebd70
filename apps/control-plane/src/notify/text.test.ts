import { describe, expect, it } from 'vitest'
import { chatText } from './text.js'

const base = { id: 'x', timestamp: '2026-01-02T03:04:05.000Z', team_id: 'team-1' }
const told = (event: string, id: string, data: Record<string, unknown> = {}): string =>
  chatText({ ...base, event, resource: { type: event.split('.')[0] ?? '', id }, data }).summary

describe('a sentence for a chat', () => {
  it('says what became of a capsule, a template or a key', () => {
    expect(told('capsule.state', 'cl-1', { name: 'box', state: 'paused' })).toBe('Capsule box is paused.')
    expect(told('template.removed', 'tpl-1')).toBe('Template tpl-1 is gone.')
    expect(told('build.state', 'b-1', { name: 'web', state: 'error' })).toBe('The build of template web has failed.')
    expect(told('api_key.revoked', 'key-1', { name: 'ci' })).toBe('API key ci was revoked.')
  })

  it('says how much of a quota is used, with its unit', () => {
    const near = (quota: string, used: number, limit: number) => told('quota.near', quota, { used, limit })
    expect(near('vcpus', 8, 10)).toBe('The team uses 8 vCPUs; it may use 10 vCPUs.')
    expect(near('pool_bytes', 2 ** 29, 2 ** 30)).toBe('The team uses 0.500 GiB of files; it may use 1.0 GiB of files.')
    expect(near('later', 1, 2)).toBe('The team uses 1 of later; it may use 2 of later.')
    expect(told('quota.reached', 'capsules', { used: 500, limit: 500 })).toBe(
      'The team has reached its limit of 500 capsules.',
    )
  })

  it('says how a host does', () => {
    expect(told('host.down', 'host-1')).toBe('Host host-1 does not answer.')
    expect(told('host.up', 'host-1')).toBe('Host host-1 answers again.')
    const short = { memory_short: true, pool_short: true }
    expect(told('host.pressure', 'host-1', short)).toBe('Host host-1 runs short of memory and room in its pool.')
    expect(told('host.pressure', 'host-1', { ...short, memory_short: false })).toBe(
      'Host host-1 runs short of room in its pool.',
    )
    expect(told('host.eased', 'host-1')).toBe('Host host-1 has enough memory and room again.')
  })
})
