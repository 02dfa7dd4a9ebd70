import { randomInt } from 'node:crypto'
import { digestOf } from './tokens.js'

const COUNT = 10
const GROUPS = 4
const GROUP_LENGTH = 4
/** Without what is taken for another: 0 and o, 1, i and l. 16 of these 31 are 79 bits. */
const LETTERS = '23456789abcdefghjkmnpqrstuvwxyz'

/** Codes to be kept on paper; each is good once. */
export function newRecoveryCodes(): string[] {
  const group = (): string => Array.from({ length: GROUP_LENGTH }, () => LETTERS[randomInt(LETTERS.length)]).join('')
  return Array.from({ length: COUNT }, () => Array.from({ length: GROUPS }, group).join('-'))
}

/** What is stored of one, however its owner types it. Random enough to need no slow hash. */
export function recoveryDigest(code: string): string {
  return digestOf(code.toLowerCase().replace(/[^0-9a-z]/g, ''))
}
