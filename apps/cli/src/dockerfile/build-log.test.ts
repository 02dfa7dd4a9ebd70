import { expect, it, vi } from 'vitest'
import { Output } from '../output.js'
import { BuildLog } from './build-log.js'

it('of a build has the headings of the platform, and none that a command has printed', () => {
  const said: string[] = []
  const printed = vi.spyOn(console, 'error').mockImplementation((text: string) => void said.push(text))
  try {
    const log = new BuildLog(new Output({ json: false, color: false }))
    const lines = [
      ['base', 'FROM base'],
      ['base', 'the image is here already'],
      ['1', 'CACHED [1/2] RUN true'],
      ['2', '[2/2] RUN ./say'],
      ['2', '[2/2] RUN ./something-else'],
      ['2', 'FROM nothing'],
      ['finalize', 'Starting: serve'],
      ['finalize', 'CACHED [1/2] \u001B[2J'],
    ] as const
    for (const [step, message] of lines) log.show({ at: new Date(0), level: 'info', step, message })
  } finally {
    printed.mockRestore()
  }
  expect(said.slice(0, 7)).toEqual([
    'FROM base',
    'the image is here already',
    'CACHED [1/2] RUN true',
    '[2/2] RUN ./say',
    '  [2/2] RUN ./something-else',
    '  FROM nothing',
    'Starting: serve',
  ])
  expect(said[7]).toMatch(/^ {2}CACHED/)
  expect(said[7]).not.toContain('\u001B')
})
