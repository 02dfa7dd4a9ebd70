import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { withMounts } from './step-mounts.js'

type Guest = Parameters<typeof withMounts>[0]

/** Remembers what it is asked for, as the arguments of each script. */
class RecordingGuest {
  readonly said: string[] = []
  readonly uploads = new Map<string, string>()

  readonly answer: Guest['answer'] = async ({ args: [, script = '', , ...args] }) => {
    const [, verb = ''] = /^(mount -t|mount -o|umount -l|if \[ "\$2" = tmpfs)/m.exec(script) ?? []
    this.said.push([verb, ...args.map((arg) => arg.replace(/[0-9a-f]{16}/, 'ID'))].join(' '))
    return Buffer.from('made')
  }

  readonly upload: Guest['upload'] = async (path, source) => {
    this.uploads.set(path, await text(source))
  }
}

const plain = { type: 'RUN', args: ['x'], force: false } as const

describe('a step with mounts', () => {
  it('has its secrets in its empty folders, and loses them in reverse', async () => {
    const guest = new RecordingGuest()
    const secrets = [{ id: 'a', path: '/root/.netrc' }]
    await withMounts(
      guest,
      { ...plain, secrets, scratch: ['/root'] },
      () => 'value',
      async () => void guest.said.push('run'),
    )
    expect(guest.said).toEqual([
      'mount -o ./var/tmp/.wrenn-scratch-ID-0 ./root',
      expect.stringMatching(/^mount -t \.\/run\/\.wrenn-secrets-ID \d+$/),
      'mount -o ./run/.wrenn-secrets-ID/0 ./root/.netrc 0:0 400',
      'run',
      'umount -l ./root/.netrc made',
      'if [ "$2" = tmpfs ./run/.wrenn-secrets-ID tmpfs',
      'umount -l ./root made',
      'if [ "$2" = tmpfs ./var/tmp/.wrenn-scratch-ID-0 folder',
    ])
    expect([...guest.uploads.values()]).toEqual(['value'])
  })

  it('has room for all its secrets, however long their characters are', async () => {
    const guest = new RecordingGuest()
    const secrets = Array.from({ length: 50 }, (_, index) => ({ id: `s${index}`, path: `/s${index}` }))
    const value = '€'.repeat(64 * 1024)
    await withMounts(
      guest,
      { ...plain, secrets },
      () => value,
      async () => {},
    )
    const bytes = 50 * Buffer.byteLength(value)
    const kib = Number(guest.said[0]?.split(' ').at(-1))
    expect(kib * 1024).toBeGreaterThan(bytes)
    expect(kib * 1024).toBeLessThan(bytes + 2 * 1024 * 1024)
  })

  it('gives variables and a mask, and needs no room for them', async () => {
    const guest = new RecordingGuest()
    const secrets = [
      { id: 'a', env: 'A' },
      { id: 'b', env: 'B' },
    ]
    await withMounts(
      guest,
      { ...plain, secrets },
      (id) => `value of ${id}`,
      async ({ envs, mask }) => {
        expect(envs).toEqual({ A: 'value of a', B: 'value of b' })
        expect(mask.hide('value of b, value of c')).toBe('***, value of c')
      },
    )
    expect(guest.said).toEqual([])
  })
})
