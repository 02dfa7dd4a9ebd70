import { isIPv4 } from 'node:net'

/** RFC 1035 §2.3.4; a name's text has no length bytes. */
const MAXIMUM_NAME_LENGTH = 253
const WILDCARD = '*.'
/** Underscores are in no host's name, but in names that are looked up. */
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/

/**
 * The one form of a host's name: lower case, no dot at its end; `undefined` for what is none, addresses and names of one label
 * included. Names of other alphabets have their ASCII form, as on the wire (RFC 5891).
 */
export function parseHostName(text: string): string | undefined {
  const name = text.endsWith('.') ? text.slice(0, -1).toLowerCase() : text.toLowerCase()
  if (name.length > MAXIMUM_NAME_LENGTH || isIPv4(name)) return undefined
  const labels = name.split('.')
  if (labels.length < 2 || !labels.every((label) => LABEL.test(label))) return undefined
  // What ends in a number is read as an address by some. https://url.spec.whatwg.org/#ends-in-a-number-checker
  return /^(?:\d+|0x[0-9a-f]*)$/.test(labels.at(-1) ?? '') ? undefined : name
}

/**
 * The one form of a domain as policies name it: a host's name, or `*.` before one, which means all names below it and not itself.
 * `undefined` for what is none, `*` and `*.com` among them.
 */
export function parseDomain(text: string): string | undefined {
  if (!text.startsWith(WILDCARD)) return parseHostName(text)
  const name = parseHostName(text.slice(WILDCARD.length))
  return name === undefined ? undefined : `${WILDCARD}${name}`
}

/** Domains, asked by name in a time that does not grow with their number. */
export class DomainSet {
  readonly #domains: ReadonlySet<string>

  /** @param domains as {@link parseDomain} gives them */
  constructor(domains: readonly string[]) {
    this.#domains = new Set(domains)
  }

  get isEmpty(): boolean {
    return this.#domains.size === 0
  }

  /** The domain that a name, as {@link parseHostName} gives it, is in; the narrowest of several. */
  find(name: string): string | undefined {
    if (this.#domains.has(name)) return name
    for (let dot = name.indexOf('.'); dot !== -1; dot = name.indexOf('.', dot + 1)) {
      const above = `*${name.slice(dot)}`
      if (this.#domains.has(above)) return above
    }
    return undefined
  }
}
