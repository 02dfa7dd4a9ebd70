import { AppError } from '@wrenn/base'

/** A satisfiable range: both ends lie in the file. */
interface ByteRange {
  readonly start: number
  /** Inclusive. */
  readonly end: number
}

/**
 * The one range a `Range` header asks for; `undefined` for the whole file: no header, another unit, several ranges
 * (RFC 9110 §14.2 lets a server ignore those).
 * @throws AppError `range_not_satisfiable`
 */
export function parseRange(header: string | undefined, size: number): ByteRange | undefined {
  const match = /^bytes=\s*(\d*)-(\d*)\s*$/.exec(header ?? '')
  if (match === null || (match[1] === '' && match[2] === '')) return undefined
  const range = match[1] === '' ? suffix(Number(match[2]), size) : fromStart(Number(match[1]), match[2] ?? '', size)
  if (range === undefined) throw new AppError('range_not_satisfiable', `The file has ${size} bytes.`)
  return range
}

function suffix(length: number, size: number): ByteRange | undefined {
  return length === 0 || size === 0 ? undefined : { start: Math.max(0, size - length), end: size - 1 }
}

function fromStart(start: number, endText: string, size: number): ByteRange | undefined {
  const end = endText === '' ? size - 1 : Math.min(Number(endText), size - 1)
  return start >= size || end < start ? undefined : { start, end }
}

/** True when the client would rather have gzip than the bytes as they are (RFC 9110 §12.5.3). */
export function prefersGzip(header: string | undefined): boolean {
  const weights = new Map<string, number>()
  for (const part of (header ?? '').toLowerCase().split(',')) {
    const [name = '', ...parameters] = part.trim().split(';')
    const quality = parameters.map((each) => /^\s*q=([\d.]+)\s*$/.exec(each)?.[1]).find((each) => each !== undefined)
    weights.set(name.trim(), quality === undefined ? 1 : Number(quality))
  }
  const gzip = weights.get('gzip') ?? weights.get('*') ?? 0
  return gzip > 0 && gzip >= (weights.get('identity') ?? 0)
}
