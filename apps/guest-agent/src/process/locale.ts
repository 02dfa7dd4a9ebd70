import { readFileSync, statSync } from 'node:fs'
import { isErrno } from '@wrenn/base'

/** Where distributions keep the language of the system: Debian and its relatives, and those with systemd. */
const FILES = ['etc/default/locale', 'etc/locale.conf']
/** UTF-8 without the habits of a country; every C library of the last ten years has it, or takes any UTF-8 for it. */
const DEFAULT = { LANG: 'C.UTF-8' }
const MAX_BYTES = 64 * 1024

/** `LANG`, `LANGUAGE` and `LC_*`. */
export type LocaleVariables = Readonly<Record<string, string>>

/** The language that programs start with: as the image's owner set it for all logins, else UTF-8. */
export class SystemLocale {
  readonly #paths: readonly string[]
  #stamp: string | undefined
  #variables: LocaleVariables = DEFAULT

  constructor(root = '/') {
    this.#paths = FILES.map((file) => `${root}${file}`)
  }

  /** `LANG` and what else is set; files are read again only when they changed. */
  get variables(): LocaleVariables {
    for (const path of this.#paths) {
      const stat = statSync(path, { throwIfNoEntry: false })
      if (!stat?.isFile() || stat.size > MAX_BYTES) continue
      const stamp = `${path}:${stat.ino}:${stat.mtimeMs}:${stat.size}`
      if (stamp !== this.#stamp) {
        this.#variables = { ...DEFAULT, ...parse(readText(path)) }
        this.#stamp = stamp
      }
      return this.#variables
    }
    return DEFAULT
  }
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    // Gone in this moment, or never readable: programs must start all the same.
    if (isErrno(error, 'ENOENT', 'EACCES', 'EIO')) return ''
    throw error
  }
}

/** Lines of `NAME=value` as shells write them; what is not about language is not for us. */
function parse(text: string): LocaleVariables {
  const variables: Record<string, string> = {}
  for (const line of text.split('\n')) {
    const [, name = '', quoted = ''] = /^\s*(?:export\s+)?(LANG|LANGUAGE|LC_[A-Z]+)=(.*?)\s*$/.exec(line) ?? []
    const value = /^(["'])(.*)\1$/.exec(quoted)?.[2] ?? quoted
    if (name !== '' && value !== '' && !value.includes('\0')) variables[name] = value
  }
  return variables
}
