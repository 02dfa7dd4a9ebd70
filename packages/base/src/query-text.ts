import { pathTextFrom } from './path-text.js'

/**
 * The query of a URL, taken apart as a form is (WHATWG URL §5.1), but without losing bytes: what is not UTF-8, as `%FE` in a path, is
 * written as `pathText` writes it. A `%` without two hexadecimal digits stands for itself.
 */
export function queryText(query: string): URLSearchParams {
  const result = new URLSearchParams()
  for (const pair of query.split('&')) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    if (equals < 0) result.append(decoded(pair), '')
    else result.append(decoded(pair.slice(0, equals)), decoded(pair.slice(equals + 1)))
  }
  return result
}

function decoded(text: string): string {
  const spaced = text.replaceAll('+', ' ')
  if (!spaced.includes('%')) return spaced
  const pieces: Buffer[] = []
  let end = 0
  for (const match of spaced.matchAll(/%([0-9a-f]{2})/gi)) {
    pieces.push(Buffer.from(spaced.slice(end, match.index)), Buffer.from(match[1] ?? '', 'hex'))
    end = match.index + match[0].length
  }
  pieces.push(Buffer.from(spaced.slice(end)))
  return pathTextFrom(Buffer.concat(pieces))
}
