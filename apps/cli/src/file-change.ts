import { pathBytes } from '@wrenn/base'
import type { FileChange } from '@wrenn/sdk'
import type { Output } from './output.js'

const signs = {
  added: ['A', 'green'],
  changed: ['M', 'yellow'],
  removed: ['D', 'red'],
} as const satisfies Record<FileChange['change'], readonly [string, 'green' | 'yellow' | 'red']>

/** `M /etc/passwd [content, mode]`; a directory ends in a slash. */
export function showChange(change: FileChange, output: Pick<Output, 'colored'>): string {
  const [sign, color] = signs[change.change]
  const slash = change.type === 'directory' ? '/' : ''
  const what = change.what.length > 0 ? ` [${change.what.join(', ')}]` : ''
  return output.colored(color, `${sign} ${showPath(change)}${slash}${what}`)
}

/** The guest chooses the names of its files: what could steer a terminal is shown as an escape, as git does. */
function showPath({ path }: FileChange): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  if (!/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/.test(path)) return path
  const escaped = Array.from(pathBytes(path), (byte) => {
    if (byte === 0x22 || byte === 0x5c) return `\\${String.fromCharCode(byte)}`
    return byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : `\\${byte.toString(8).padStart(3, '0')}`
  })
  return `"${escaped.join('')}"`
}
