import { describe, expect, it } from 'vitest'
import { sandboxed } from './sandbox.js'

const words = (speaks: boolean): string =>
  sandboxed({ binds: [], speaks, capabilities: [], fileBytes: 5, command: ['tool'] }).join(' ')

describe('the sandbox of a tool', () => {
  it('shows no key of this machine: authorities and names alone, and those to who speaks', () => {
    const shown = (line: string): string[] =>
      [...line.matchAll(/--ro-bind(?:-try)? (\/etc\S*)/g)].map(([, path]) => path ?? '')
    expect(shown(words(false))).toEqual([])
    expect(shown(words(true))).toEqual(['/etc/hosts', '/etc/ssl/certs/ca-certificates.crt'])
  })

  it('bounds what the tool writes, keeps and starts', () => {
    expect(words(false)).toMatch(/--size \d+ --perms 1777 --tmpfs \/tmp/)
    expect(words(false)).toMatch(
      /--remount-ro \/dev --remount-ro \/ .*-- prlimit --fsize=5 --data=\d+ --nproc=\d+ --core=0 tool$/,
    )
  })
})
