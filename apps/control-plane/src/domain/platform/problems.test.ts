import type { HostHealth, PlatformHealth } from '@wrenn/protocol'
import { describe, expect, it } from 'vitest'
import { problemsOf } from './problems.js'

const now = new Date('2026-01-02T03:04:05Z')
const status: NonNullable<HostHealth['status']> = {
  ...{ ready: true, engine_version: '9', engine_reason: '', kernel_version: '6.1', cpus: 2, pool_filesystem: 'btrfs' },
  ...{
    memory_bytes: 100,
    memory_available_bytes: 50,
    pool_bytes: 100,
    pool_free_bytes: 50,
    started_at: now.toISOString(),
  },
}
const host: HostHealth = {
  ...{
    id: 'host-1',
    address: 'unix:/a',
    answers: true,
    last_seen_at: now.toISOString(),
    agent_version: '1',
    engine: 'e',
  },
  ...{ running_capsules: 3, used_vcpus: 3, used_memory_mb: 3, capsules: 4, templates: 0, status },
}
const well: Omit<PlatformHealth, 'problems'> = {
  hosts: [host],
  control_plane: { version: '1', started_at: now.toISOString(), replicas: 1 },
  database: { version: '16', migration: '0001', pending_migrations: 0, latency_ms: 1 },
  mail: { via: 'smtp', to: 'mail:25', from: 'a@b', waiting: 0, given_up: 0 },
}
const of = (change: Partial<typeof well>, reasons: ReadonlyMap<HostHealth, string> = new Map()) =>
  problemsOf({ ...well, ...change }, reasons, now).map(
    ({ severity, part, message }) => `${severity} ${part} ${message}`,
  )
const withStatus = (change: Partial<typeof status>) => of({ hosts: [{ ...host, status: { ...status, ...change } }] })

describe('problemsOf', () => {
  it('has none when all is well', () => {
    expect(of({})).toEqual([])
  })

  it('says since when a host is silent, and why, before all warnings', () => {
    const { status: _, ...silent } = { ...host, answers: false }
    const found = of({ mail: { ...well.mail, via: 'none' }, hosts: [silent] }, new Map([[silent, 'Nobody listens.']]))
    expect(found).toEqual([
      `error host The host host-1 has not answered since ${now.toISOString()}; 3 capsules are meant to run on it. Nobody listens.`,
      'warning mail Mails are not sent: neither a mail server nor a folder is set.',
    ])
  })

  it('says what a host lacks, or soon will', () => {
    expect(withStatus({ ready: false })).toEqual(['error host The host host-1 cannot create capsules yet.'])
    expect(withStatus({ pool_free_bytes: 9 })).toEqual([
      expect.stringMatching(/^warning host The pool of the host host-1 is 91 % full/),
    ])
    expect(withStatus({ memory_available_bytes: 9 })).toEqual([
      expect.stringMatching(/^warning host The host host-1 has 9 % of its memory/),
    ])
    expect(of({ hosts: [{ ...host, agent_version: '0' }] })).toEqual([
      'warning host The host agent of host-1 is version 0, the control plane 1.',
    ])
  })

  it('says what the database lacks', () => {
    expect(of({ database: { ...well.database, pending_migrations: 2, latency_ms: 251 } })).toEqual([
      'error database The schema of the database is older than this control plane: 2 migrations are missing.',
      'warning database The database took 251 ms to answer.',
    ])
  })

  it('says when mails do not get to people', () => {
    expect(of({ mail: { ...well.mail, via: 'outbox', to: '/out' } })).toEqual([
      'warning mail Mails become files in /out instead of being sent.',
    ])
    const at = (ms: number) => new Date(now.getTime() - ms).toISOString()
    expect(of({ mail: { ...well.mail, waiting: 1, oldest_waiting_at: at(599_000) } })).toEqual([])
    expect(of({ mail: { ...well.mail, waiting: 1, oldest_waiting_at: at(601_000), given_up: 2 } })).toEqual([
      `warning mail 1 mails wait for the mail server mail:25, the oldest since ${at(601_000)}.`,
      'warning mail 2 mails of the last 24 hours were given up.',
    ])
  })

  it('says when the billing system does not have what teams used', () => {
    const at = (ms: number) => new Date(now.getTime() - ms).toISOString()
    const lago = { to: 'lago:443', waiting: 0, refused: 0 }
    expect(of({ lago })).toEqual([])
    expect(of({ lago: { ...lago, problem: 'The state is missing.' } })).toEqual([
      'warning lago Usage cannot be told to Lago at lago:443. The state is missing.',
    ])
    expect(of({ lago: { ...lago, waiting: 3, oldest_waiting_at: at(3_599_000) } })).toEqual([])
    const late = { ...lago, waiting: 3, oldest_waiting_at: at(3_601_000) }
    expect(of({ lago: { ...late, problem: 'Lago answered 401.' } })).toEqual([
      `warning lago 3 events of usage wait for Lago at lago:443, the oldest since ${at(3_601_000)}. Lago answered 401.`,
    ])
    expect(of({ lago: { ...late, oldest_waiting_at: at(1), refused: 2, problem: 'It says no.' } })).toEqual([
      'warning lago Lago at lago:443 refused 2 events of usage, which are tried again. It says no.',
    ])
  })
})
