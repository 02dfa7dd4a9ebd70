import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { countOomKills, type ExitEvidence, judgeExit, oopsOf } from './exit-cause.js'

const nothing: ExitEvidence = {
  killRequested: false,
  reason: undefined,
  exitCode: undefined,
  signal: undefined,
  oomKills: 0,
  consoleTail: '',
  engineLog: '',
}
const panic = '[ 1.0] Kernel panic - not syncing: sysrq triggered crash\r\n'

describe('judgeExit', () => {
  it.each([
    ['a guest that powered off', { reason: 'guest-shutdown', exitCode: 0 }, 'guest_shutdown'],
    ['a guest that rebooted', { reason: 'guest-reset', exitCode: 0 }, 'guest_reset'],
    ['a reset after a panic', { reason: 'guest-reset', exitCode: 0, consoleTail: panic }, 'guest_panic'],
    ['a panic that QEMU saw', { reason: 'guest-panicked', exitCode: 0 }, 'guest_panic'],
    ['a guest found powered off', { reason: 'shutdown' }, 'guest_shutdown'],
    ['a guest found after a reboot', { reason: 'shutdown', consoleTail: 'reboot: Restarting system' }, 'guest_reset'],
    ['a kill that was asked for', { killRequested: true, signal: 'SIGKILL' }, 'killed'],
    ['a kill for want of memory', { signal: 'SIGKILL', oomKills: 1 }, 'oom_killed'],
    ['an adopted process killed for want of memory', { oomKills: 1 }, 'oom_killed'],
    ['a kill on request after an earlier shortage', { killRequested: true, signal: 'SIGKILL', oomKills: 1 }, 'killed'],
    ['a kill by somebody else', { signal: 'SIGKILL' }, 'killed'],
    ['a SIGTERM that QEMU obeyed', { reason: 'host-signal', exitCode: 0 }, 'killed'],
    ['a crash', { signal: 'SIGSEGV' }, 'engine_failure'],
    ['an error exit', { exitCode: 1, engineLog: 'qemu: no\n' }, 'engine_failure'],
    ['a CPU that KVM cannot run', { reason: 'internal-error' }, 'engine_failure'],
    ['an adopted process that is just gone', {}, 'unknown'],
  ] as const)('judges %s', (_, evidence, cause) => {
    expect(judgeExit({ ...nothing, ...evidence }).cause).toBe(cause)
  })

  it('quotes the panic and the last words of QEMU', () => {
    expect(judgeExit({ ...nothing, reason: 'guest-reset', consoleTail: panic }).message).toContain('sysrq triggered')
    const oops =
      '[ 1.0] BUG: kernel NULL pointer dereference, address: 0000000000000008\r\n[ 1.0] Oops: 0002 [#1] PREEMPT SMP\r\n' +
      '[ 1.0] RIP: 0010:__handle_irq+0x1/0x2\r\n[ 1.0] Kernel panic - not syncing: Fatal exception in interrupt\r\n'
    expect(judgeExit({ ...nothing, reason: 'guest-reset', consoleTail: oops }).message).toBe(
      "The guest's kernel panicked: Kernel panic - not syncing: Fatal exception in interrupt " +
        '(BUG: kernel NULL pointer dereference, address: 0000000000000008; RIP: 0010:__handle_irq+0x1/0x2).',
    )
    expect(oopsOf(`[ 0.9] Run /init\r\n${oops}[ 1.1] Kernel Offset: 0x1\r\n`)).toHaveLength(5)
    expect(oopsOf(`[ 1.0] Oops: 0002\r\na password\r\n[ 1.0] ${'R'.repeat(300)}`)).toEqual([
      '[ 1.0] Oops: 0002',
      `[ 1.0] ${'R'.repeat(193)}`,
    ])
    expect(oopsOf('[ 0.9] Run /init\r\n')).toEqual([])
    expect(judgeExit({ ...nothing, exitCode: 1, engineLog: 'a\nqemu: no space\n' }).message).toContain('qemu: no space')
  })
})

describe('countOomKills', () => {
  it('reads both generations of cgroups and skips other controllers', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'wrenn-oom-'))
    await writeFile(join(folder, 'memory.events'), 'low 0\noom 3\noom_kill 2\n')
    await writeFile(join(folder, 'memory.oom_control'), 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n')
    expect(await countOomKills([folder, join(folder, 'gone')])).toBe(3)
    await rm(folder, { recursive: true })
  })
})
