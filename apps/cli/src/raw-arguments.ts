import { readFileSync } from 'node:fs'
import { pathText } from '@wrenn/base'

/**
 * Our arguments in the form of `pathText`. Node.js turns bytes that are not UTF-8 into U+FFFD, whichever they were; where the
 * kernel tells the bytes themselves, names of any bytes can be given on the command line.
 */
export function rawArguments(argv: readonly string[], readCommandLine = commandLine): string[] {
  if (!argv.some((word) => word.includes('\ufffd'))) return [...argv]
  const raw = readCommandLine()
  if (raw === undefined) return [...argv]
  // Options of Node.js itself stand before ours.
  const last = splitAtZeros(raw).slice(-argv.length)
  return argv.map((word, at) => (word.includes('\ufffd') ? pathText(last[at] ?? Buffer.from(word)) : word))
}

function commandLine(): Buffer | undefined {
  try {
    return readFileSync('/proc/self/cmdline')
  } catch {
    return undefined // not Linux
  }
}

function splitAtZeros(bytes: Buffer): Buffer[] {
  const words: Buffer[] = []
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0, at)
    words.push(bytes.subarray(at, end < 0 ? bytes.length : end))
    at = end < 0 ? bytes.length : end + 1
  }
  return words
}
