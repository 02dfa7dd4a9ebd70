import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { type LaunchOptions, launcherArguments } from './launch.js'

const options: LaunchOptions = {
  command: ['/usr/bin/qemu', '$(id)', 'a b'],
  confinement: { uid: 200001, gid: 200002, cgroups: ['/cg/memory/x', '/cg/pids/x'] },
  network: { namespace: 'ns1', tap: 'tap0', mac: '02:57:52:00:00:05' },
  groups: [],
  logPath: '/nowhere',
}

describe('launcherArguments', () => {
  it('enters the network namespace while it may, then drops every right, then becomes the command', () => {
    const args = launcherArguments(options)
    const nsenter = args.indexOf('nsenter')
    const setpriv = args.indexOf('setpriv')
    expect(args[nsenter + 1]).toBe('--net=/run/netns/ns1')
    expect(setpriv).toBeGreaterThan(nsenter)
    expect(args.slice(setpriv)).toEqual(
      expect.arrayContaining([
        '--reuid=200001',
        '--regid=200002',
        '--clear-groups',
        '--no-new-privs',
        '--bounding-set=-all',
      ]),
    )
    expect(args.slice(-3)).toEqual(options.command)
  })

  it('stays in the network of the host without a slot, where the guest has no card', () => {
    expect(launcherArguments({ ...options, network: undefined })).not.toContain('nsenter')
  })

  it('keeps one group for KVM', () => {
    expect(launcherArguments({ ...options, groups: [108] })).toContain('--groups=108')
  })

  it('hands on arguments as they are, whatever a shell would make of them', async () => {
    const args = launcherArguments({ ...options, network: undefined, confinement: { uid: 0, gid: 0, cgroups: [] } })
    const command = args.indexOf('setpriv')
    const printing = [...args.slice(0, command), 'printf', '%s|', '$(id)', 'a b', '*']
    const { stdout } = await promisify(execFile)('/bin/sh', printing)
    expect(stdout).toBe('$(id)|a b|*|')
  })
})
