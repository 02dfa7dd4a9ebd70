import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readConfig } from '../../config.js'
import { loadHostPrograms } from '../../machine.js'
import { attempt, examineHost, seenBy } from './doctor.js'
import { checkEngine, checkGuestKernel, checkGuestNode, checkPackages } from './machine-checks.js'
import { checkObjectStore, lazinessOf, paceOf } from './object-store-check.js'
import { type CheckStatus, type DoctorCheck, reportOf } from './report.js'

const check = (id: string, status: CheckStatus): DoctorCheck => ({ id, title: id, status, detail: id })

describe('the doctor', () => {
  it('looks at everything once and never throws, whatever the machine', async () => {
    const { checks } = await examineHost({
      dir: join(tmpdir(), 'no-such-dir'),
      network: { prefix: 'wrenn', cidr: '10.201.0.0/16' },
      programs: await loadHostPrograms(),
    })
    const ids = checks.map(({ id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids).toEqual(
      expect.arrayContaining(['engine', 'packages', 'reflink', 'cgroups', 'tun', 'range', 'firewall']),
    )
    for (const { detail, status, fix } of checks) {
      expect(detail).not.toBe('')
      expect(detail).not.toMatch(/check itself failed/)
      if (status === 'fail') expect(fix).toBeDefined()
    }
  })

  it('checks what the demo installs, and only warns of what can be done without', async () => {
    const { checks } = await examineHost({
      dir: tmpdir(),
      network: { prefix: 'wrenn', cidr: '10.201.0.0/16' },
      programs: await loadHostPrograms(),
    })
    expect(checks.find(({ id }) => id === 'packages')?.status).not.toBe('fail')
    const there = { program: 'sh', debianPackage: 'dash' }
    const gone = { program: 'no-such-program', debianPackage: 'no-such-package' }
    const detail = 'Missing: no-such-package.'
    expect(await checkPackages([there, gone, gone])).toMatchObject({ status: 'fail', detail })
    expect(await checkPackages([there, { ...gone, isOptional: true }])).toMatchObject({ status: 'warn', detail })
    expect(await checkPackages([there])).toMatchObject({ status: 'ok' })
  })

  it('fails a range that is none and one that the machine uses', async () => {
    for (const cidr of ['nonsense', '127.0.0.0/16']) {
      const { checks } = await examineHost({ dir: tmpdir(), network: { prefix: 'wrenn', cidr }, programs: [] })
      expect(checks.find(({ id }) => id === 'range')).toMatchObject({
        status: 'fail',
        fix: expect.stringContaining('WRENN_NETWORK_CIDR'),
      })
    }
  })

  it('says that no object store is set, and why one that is set does not work', async () => {
    expect(await checkObjectStore(undefined)).toMatchObject({
      status: 'ok',
      detail: 'None is set (WRENN_OBJECT_STORE).',
    })
    const config = readConfig({
      WRENN_OBJECT_STORE: 's3://states',
      WRENN_OBJECT_STORE_ENDPOINT: 'http://127.0.0.1:1',
      WRENN_OBJECT_STORE_ACCESS_KEY: 'key',
      WRENN_OBJECT_STORE_SECRET_KEY: 'not a secret',
    })
    expect(await checkObjectStore(config.objectStore)).toMatchObject({
      status: 'fail',
      detail: 'The object store at http://127.0.0.1:1 cannot be reached (ECONNREFUSED).',
      fix: expect.stringContaining('WRENN_OBJECT_STORE'),
    })
  })

  it('says whether hibernated capsules run before their memory is whole, and what is in the way', () => {
    const { lazyResume } = readConfig({})
    expect(lazinessOf(lazyResume, undefined)).toContain('before their memory is whole')
    expect(lazinessOf(lazyResume, '/dev/fuse cannot be opened (ENOENT)')).toContain('/dev/fuse cannot be opened')
    expect(lazinessOf(readConfig({ WRENN_LAZY_RESUME: '0' }).lazyResume, undefined)).toContain('WRENN_LAZY_RESUME')
  })

  it('says how fast transfers with the object store may be', () => {
    const { objectStoreBytesPerSec } = readConfig({ WRENN_OBJECT_STORE_MIB_PER_SEC: '8' })
    expect(objectStoreBytesPerSec).toBe(8 * 2 ** 20)
    expect(paceOf(objectStoreBytesPerSec)).toContain(' 8 MiB/s ')
    expect(paceOf(readConfig({}).objectStoreBytesPerSec)).toContain('no limit')
  })

  it('names first what is broken, then what makes it slow', () => {
    const slow = [check('kvm', 'warn'), check('reflink', 'warn'), check('engine', 'warn'), check('range', 'ok')]
    expect(reportOf(slow).bestImprovement?.id).toBe('engine')
    expect(reportOf([...slow, check('packages', 'fail')]).bestImprovement?.id).toBe('packages')
    expect(reportOf([check('range', 'ok')]).bestImprovement).toBeUndefined()
  })

  it('says what somebody who is not root cannot read, and how to', () => {
    const check = checkEngine(undefined, "EACCES: permission denied, open '/var/lib/wrenn/pool'")
    expect(check).toMatchObject({
      status: 'warn',
      detail: expect.stringContaining('EACCES'),
      fix: 'Run this with sudo.',
    })
  })

  it('takes a refusal for a failure only from root', () => {
    const refused: DoctorCheck = {
      id: 'nftables',
      title: 'Firewall rules',
      status: 'fail',
      detail: 'Operation not permitted (you must be root)\nnetlink: Error',
      fix: 'modprobe nf_tables',
    }
    expect(seenBy(0, refused)).toBe(refused)
    const detail = 'Cannot be checked without root: Operation not permitted (you must be root)'
    expect(seenBy(1000, refused)).toMatchObject({ status: 'warn', detail, fix: 'Run this with sudo.' })
    expect(seenBy(1000, { ...refused, detail: 'nft is missing' }).status).toBe('fail')
  })

  it('names a check for people also where it could not look', async () => {
    const subject = { id: 'reflink', title: 'Cloning file system' }
    const refuse = (): never => {
      throw new Error("EACCES: permission denied, open '/pool/.clone'")
    }
    expect(await attempt(subject, refuse, 1000)).toEqual({
      ...subject,
      status: 'warn',
      detail: "Cannot be checked without root: EACCES: permission denied, open '/pool/.clone'",
      fix: 'Run this with sudo.',
    })
    expect(await attempt(subject, refuse, 0)).toMatchObject({ ...subject, status: 'fail' })
  })

  it('calls software emulation an improvement to make', () => {
    const emulation = { name: 'qemu-tcg', reason: 'booted in 4 s', isProven: true, obstacle: 'no /dev/kvm.' }
    expect(checkEngine(emulation)).toMatchObject({
      status: 'warn',
      detail: 'qemu-tcg: booted in 4 s',
      fix: expect.stringMatching(/^no \/dev\/kvm\. With hardware virtualization/),
    })
    expect(checkEngine({ name: 'qemu-kvm', reason: 'booted in 0.4 s', isProven: true }).status).toBe('ok')
  })

  it('says which kernel guests boot and why, and warns of a second choice', () => {
    const kernel = {
      kernelVersion: '6.12.1-cloud-amd64',
      package: 'linux-image-6.12.1-cloud-amd64',
      reason: 'The newest.',
    }
    expect(checkGuestKernel({ ...kernel, isPreferred: true })).toMatchObject({
      status: 'ok',
      detail: '6.12.1-cloud-amd64. The newest.',
    })
    expect(checkGuestKernel({ ...kernel, isPreferred: false })).toMatchObject({
      status: 'warn',
      detail: '6.12.1-cloud-amd64. The newest.',
      fix: expect.stringContaining('sources'),
    })
    expect(checkGuestKernel(undefined).status).toBe('ok')
  })

  it('says which Node.js guests run and why', () => {
    expect(checkGuestNode({ version: 'v20.20.2', reason: 'The own one refuses.' })).toMatchObject({
      status: 'ok',
      detail: 'v20.20.2. The own one refuses.',
    })
    expect(checkGuestNode(undefined).status).toBe('ok')
  })

  it('tells an engine that booted from one that is only expected, and from none', () => {
    expect(checkEngine({ name: 'qemu-kvm', reason: 'Not tried.', isProven: false })).toMatchObject({
      status: 'warn',
      detail: 'qemu-kvm is expected: Not tried.',
    })
    expect(checkEngine({ name: undefined, reason: 'No QEMU.', isProven: false })).toMatchObject({
      status: 'fail',
      detail: expect.stringContaining('No QEMU.'),
      fix: expect.any(String),
    })
  })
})
