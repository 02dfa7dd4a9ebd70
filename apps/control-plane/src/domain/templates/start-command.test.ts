import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { startOf } from './start-command.js'

const container = { entrypoint: ['/in', '-e'], command: ['serve'] }

describe('what is to run in a template', () => {
  it.each([
    ['the image', {}, 'exec /in -e serve', true],
    ['a command', { command: ['other'] }, 'exec /in -e other', false],
    ['an entry point, for which the command of the image was not', { entrypoint: ['/own'] }, 'exec /own', false],
    ['both', { entrypoint: ['/own'], command: ['x y'] }, "exec /own 'x y'", false],
    ['neither, which is said', { entrypoint: [], command: [] }, undefined, false],
    ['a line for a shell', { startCmd: 'a | b' }, 'a | b', false],
  ])('is said by %s', (_, said, startCmd, isOfImage) => {
    expect(startOf(said, { container })).toEqual({ ...(startCmd === undefined ? {} : { startCmd }), isOfImage })
  })

  it('is what an archive brings, unless something else is said', () => {
    const archived = { startCmd: 'serve', readyCmd: 'test -e up' }
    expect(startOf({}, archived)).toEqual({ ...archived, isOfImage: false })
    expect(startOf({ readyCmd: 'true' }, archived)).toEqual({ readyCmd: 'true', isOfImage: false })
  })

  it('is read by a shell as the words that it was', () => {
    const words = ['plain', '', "it's", 'a  b', '$HOME `id` $(id)', '*', '\\', '"', 'a\nb', '-n', '~', 'x=1', '#']
    const { startCmd = '' } = startOf({ entrypoint: ['/usr/bin/printf', '%s\\0'], command: words }, {})
    const read = execFileSync('/bin/sh', ['-c', startCmd], { encoding: 'utf8' })
    expect(read.split('\0').slice(0, -1)).toEqual(words)
  })
})
