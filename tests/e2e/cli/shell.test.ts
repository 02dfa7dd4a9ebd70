import { describe, expect, it } from 'vitest'
import { useCapsule, usePlatform } from '../harness/api.js'
import { Terminal } from '../harness/terminal.js'

const { platform } = usePlatform()
const capsule = useCapsule()

describe('wrenn shell', () => {
  it('is a terminal of the right size in the capsule, and ends with the exit code of its shell', async () => {
    const terminal = Terminal.shell(platform, capsule().id)
    await terminal.shows(capsule().id.slice(0, 10))
    terminal.type('stty size; hostname; echo "in $0"\r')
    await terminal.shows(/\b33 88\b/)
    await terminal.shows(/in -?.*sh/)
    terminal.type('sleep 1000\r')
    await terminal.shows('sleep 1000')
    await capsule().text('until pgrep -x sleep; do sleep 0.05; done')
    terminal.type('\u0003')
    terminal.type('echo "after $?"\r')
    await terminal.shows('after 130')
    terminal.type('exit 7\r')
    expect(await terminal.ended).toBe(7)
  })

  it('is left with Enter ~ . and taken up again where it was', async () => {
    const first = Terminal.shell(platform, capsule().id, '--', '/bin/sh')
    first.type('kept=value-$((40 + 2))\r')
    await first.shows('kept=')
    first.type('\r~.')
    const detached = await first.shows(/--attach (pty-\w+)/)
    const tag = /--attach (pty-\w+)/.exec(detached)?.[1] ?? ''
    expect(await first.ended).toBe(0)
    const second = Terminal.shell(platform, capsule().id, '--attach', tag)
    await second.shows('kept=value')
    second.type('echo "is $kept"\r')
    await second.shows('is value-42')
    second.type('exit 0\r')
    expect(await second.ended).toBe(0)
  })
})
