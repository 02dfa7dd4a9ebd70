import { stripVTControlCharacters } from 'node:util'

/** Text as a database can hold it: whole characters, and no NUL. */
export function storable(text: string): string {
  // Encoding replaces halves of characters.
  return Buffer.from(text).toString().replaceAll('\0', '\uFFFD')
}

/** The same of what a program prints to a terminal, without what moves the cursor and colours, at most `maxLength` of it. */
export function plainLine(text: string, maxLength: number): string {
  return storable(stripVTControlCharacters(text).slice(0, maxLength))
}
