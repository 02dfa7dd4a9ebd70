import { CommanderError } from 'commander'
import { describe, expect, it } from 'vitest'
import { createProgram } from './program.js'

function wordsOf(line: string): string {
  const program = createProgram()
  const said: string[] = []
  const listen = (command: typeof program): void => {
    command.configureOutput({ writeErr: (text) => said.push(text) })
    for (const child of command.commands) listen(child)
  }
  listen(program)
  expect(() => program.parse(line.split(' '), { from: 'user' })).toThrow(CommanderError)
  return said.join('')
}

describe('a command line that is not understood', () => {
  it('is answered with the help of the very command', () => {
    expect(wordsOf('run --memory 12x -- ls')).toContain('`wrenn run --help`')
    expect(wordsOf('capsule info')).toContain('`wrenn capsule info --help`')
    expect(wordsOf('capsule checkpoint nope')).toContain('`wrenn capsule checkpoint --help`')
    expect(wordsOf('key create --scope capsules,root ci')).toContain('Scopes are read, capsules')
    expect(wordsOf('usage --month 2026-13')).toContain('Give a month such as 2026-11.')
    expect(wordsOf('usage verify --from yesterday')).toContain('`wrenn usage verify --help`')
    expect(wordsOf('nope')).toContain('`wrenn --help`')
  })
})
