/** What a mail says, as plain text without any markup: the layout escapes all of it. */
export interface Letter {
  readonly subject: string
  /** Whom it is for; `undefined` when no name is known. */
  readonly name?: string | undefined
  /** One paragraph each. */
  readonly before: readonly string[]
  readonly action?: { readonly label: string; readonly url: string } | undefined
  readonly after: readonly string[]
}

/** Makes absolute links to pages of this platform. What they carry is for the page alone: browsers send what is behind `#` to no server. */
export type Links = (path: string, carried?: Readonly<Record<string, string>>) => string

/** Below the URL that people reach the platform at, which may have a path of its own. */
export function linksBelow(publicUrl: string): Links {
  const base = publicUrl.replace(/\/+$/, '')
  return (path, carried = {}) => {
    const fields = new URLSearchParams(carried).toString()
    return `${base}${path}${fields === '' ? '' : `#${fields}`}`
  }
}

const MAX_NAME_LENGTH = 100

/**
 * A name that somebody chose, for use in a sentence to somebody else: one line, bounded, and nothing that mail programs make a link of,
 * so that nobody can send an advertisement in our name.
 */
export function plainName(name: string): string {
  const line = name
    .replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ')
    .replace(/[:/\\@<>]+/g, ' ')
    .replace(/\.(?=\S)/g, '. ')
    .replace(/\s+/g, ' ')
    .trim()
  return [...line].slice(0, MAX_NAME_LENGTH).join('')
}

/** A moment as people write it, in UTC: nobody's time zone is known. */
export function showTime(iso: string): string {
  const text = new Date(iso).toLocaleString('en-GB', {
    timeZone: 'UTC',
    day: 'numeric',
    month: 'long',
    year: 'numeric',
    hour: '2-digit',
    minute: '2-digit',
  })
  return `${text.replace(' at ', ', ')} UTC`
}
