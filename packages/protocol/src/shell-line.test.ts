import { expect, it } from 'vitest'
import { shellLine } from './shell-line.js'

it('a command is a line for a shell, quoted where that is needed', () => {
  expect(shellLine(['nginx', '-g', 'daemon off;'])).toBe("exec nginx -g 'daemon off;'")
  expect(shellLine(['echo', '', "it's", '$HOME'])).toBe("exec echo '' 'it'\\''s' '$HOME'")
})
