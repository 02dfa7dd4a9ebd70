/** A word that cannot be expanded, with a sentence for people. */
export class DockerfileWordError extends Error {}

/** The value of a variable; `undefined` where there is none of that name. */
export type Lookup = (name: string) => string | undefined

/** Of a word without its variables; Linux takes no longer one for a command. */
export const MAX_WORD_LENGTH = 128 * 1024
const MAX_TOLD_LENGTH = 200
const NAME = /[A-Za-z_]\w*/y

/**
 * A word of a Dockerfile without its quotes and escapes and with variables in their place, as Docker's own words are:
 * https://docs.docker.com/reference/dockerfile/#environment-replacement. Nothing is expanded in single quotes or after a backslash, a
 * variable that there is none of is empty, and of the forms with braces `:-`, `-`, `:+`, `+`, `:?` and `?` are known.
 * @throws DockerfileWordError for quotes and braces without an end, other forms, where `?` says so, and for what would be longer than `MAX_WORD_LENGTH`
 */
export function expandDockerfileWord(word: string, lookup: Lookup): string {
  const expanded = new WordReader(word, lookup).read()
  if (expanded.length <= MAX_WORD_LENGTH) return expanded
  throw tooLong()
}

function tooLong(): DockerfileWordError {
  return new DockerfileWordError(`a word would have more than ${MAX_WORD_LENGTH} characters`)
}

/** Words between blanks; quotes, and blanks after a backslash, do not end one. They stay as they are written. */
export function splitDockerfileWords(text: string): string[] {
  const words: string[] = []
  let word = ''
  let quote = ''
  for (let at = 0; at < text.length; at++) {
    const char = text[at] ?? ''
    if (quote === '' && /\s/.test(char)) {
      if (word !== '') words.push(word)
      word = ''
      continue
    }
    word += char
    if (char === '\\' && quote !== "'" && at + 1 < text.length) word += text[++at]
    else if (quote === '' && (char === '"' || char === "'")) quote = char
    else if (char === quote) quote = ''
  }
  return word === '' ? words : [...words, word]
}

class WordReader {
  readonly #text: string
  readonly #lookup: Lookup
  #at = 0
  /** Of all values put in so far: a word of a few letters must not become larger than memory is. */
  #putIn = 0

  constructor(text: string, lookup: Lookup) {
    this.#text = text
    this.#lookup = lookup
  }

  /** Up to `end`, which is passed by, or to the end of the text. */
  read(end = ''): string {
    let result = ''
    while (this.#at < this.#text.length) {
      const char = this.#next()
      if (char === end) return result
      if (char === "'") result += this.#single()
      else if (char === '"') result += this.#double()
      else if (char === '$') result += this.#dollar()
      else if (char === '\\') result += this.#at < this.#text.length ? this.#next() : ''
      else result += char
    }
    if (end !== '') throw new DockerfileWordError(`${this.#told} has no ${end} to its opening brace`)
    return result
  }

  #next(): string {
    return this.#text[this.#at++] ?? ''
  }

  #single(): string {
    const end = this.#text.indexOf("'", this.#at)
    if (end < 0) throw new DockerfileWordError(`${this.#told} has a quote without an end`)
    const text = this.#text.slice(this.#at, end)
    this.#at = end + 1
    return text
  }

  #double(): string {
    let result = ''
    while (this.#at < this.#text.length) {
      const char = this.#next()
      if (char === '"') return result
      if (char === '$') result += this.#dollar()
      else if (char === '\\' && /["$\\]/.test(this.#text[this.#at] ?? '')) result += this.#next()
      else result += char
    }
    throw new DockerfileWordError(`${this.#told} has a quote without an end`)
  }

  #dollar(): string {
    if (this.#text[this.#at] === '{') {
      this.#at += 1
      return this.#braced()
    }
    const name = this.#name()
    return name === '' ? '$' : this.#counted(this.#lookup(name))
  }

  #counted(value = ''): string {
    this.#putIn += value.length
    if (this.#putIn > MAX_WORD_LENGTH) throw tooLong()
    return value
  }

  /** The word as errors show it. */
  get #told(): string {
    return this.#text.length > MAX_TOLD_LENGTH ? `${this.#text.slice(0, MAX_TOLD_LENGTH)}…` : this.#text
  }

  #braced(): string {
    const name = this.#name()
    if (name === '') throw new DockerfileWordError(`${this.#told} has braces without a name`)
    const value = this.#lookup(name)
    if (this.#text[this.#at] === '}') {
      this.#at += 1
      return this.#counted(value)
    }
    const [form] = /^:?[-+?]/.exec(this.#text.slice(this.#at)) ?? []
    if (form === undefined) {
      throw new DockerfileWordError(
        `${this.#told} has a form of \${${name}…} that is not supported, which are :- - :+ + :? ?`,
      )
    }
    this.#at += form.length
    const other = this.read('}')
    const isThere = form.startsWith(':') ? value !== undefined && value !== '' : value !== undefined
    if (form.endsWith('-')) return isThere ? this.#counted(value) : other
    if (form.endsWith('+')) return isThere ? other : ''
    if (isThere) return this.#counted(value)
    throw new DockerfileWordError(`${name} is needed${other === '' ? '' : `: ${other}`}`)
  }

  #name(): string {
    NAME.lastIndex = this.#at
    const [name = ''] = NAME.exec(this.#text) ?? []
    this.#at += name.length
    return name
  }
}
