import { hash } from 'node:crypto'
import { AppError } from '@wrenn/base'
import { AUDIT_GENESIS, auditText } from '@wrenn/sdk'

/** What an export says of itself when every entry is the one that was written, in its place. */
export interface VerifiedExport {
  readonly entries: number
  readonly firstSeq: number
  readonly lastSeq: number
  /** Of the last entry: the same in an earlier export or a note says that nothing before it was changed. */
  readonly lastHash: string
}

interface Line {
  readonly seq: number
  readonly prev_hash: string
  readonly hash: string
}

/** Text as it comes, cut into lines as they end; many at a time, for there are millions. The last may lack its end. */
export async function* linesOf(text: AsyncIterable<string>): AsyncGenerator<readonly string[]> {
  let rest = ''
  for await (const part of text) {
    const lines = `${rest}${part}`.split('\n')
    rest = lines.pop() ?? ''
    yield lines
  }
  if (rest !== '') yield [rest]
}

/** Checks a chain line after line; may begin anywhere, as an export after retention does. */
export class ChainVerifier {
  #lines = 0
  #first: Line | undefined
  #last: Line | undefined

  /** @throws AppError `audit_broken`, naming line and place */
  add(text: string): void {
    this.#lines += 1
    const entry = parse(text, this.#lines)
    if (hash('sha256', auditText(entry)) !== entry.hash) {
      throw this.#broken(entry, 'it is not as it was written: its hash is another')
    }
    const last = this.#last
    if (last !== undefined && entry.seq !== last.seq + 1) throw this.#broken(entry, `it comes after place ${last.seq}`)
    const expected = last?.hash ?? (entry.seq === 1 ? AUDIT_GENESIS : entry.prev_hash)
    if (entry.prev_hash !== expected) throw this.#broken(entry, 'it does not follow the entry before it')
    this.#first ??= entry
    this.#last = entry
  }

  /** `undefined`: there was no entry. */
  result(): VerifiedExport | undefined {
    if (this.#first === undefined || this.#last === undefined) return undefined
    const [{ seq: firstSeq }, { seq: lastSeq, hash: lastHash }] = [this.#first, this.#last]
    return { entries: this.#lines, firstSeq, lastSeq, lastHash }
  }

  #broken({ seq }: Line, why: string): AppError {
    return new AppError('audit_broken', `Line ${this.#lines}, place ${seq}: ${why}.`, {
      details: { line: this.#lines, seq },
    })
  }
}

function parse(text: string, line: number): Line & Parameters<typeof auditText>[0] {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    // Told below.
  }
  if (isEntry(value)) return value
  throw new AppError('audit_broken', `Line ${line} is not an entry of an audit trail.`, { details: { line } })
}

/** Fields that are missing or of another kind beyond these change the hash. */
function isEntry(value: unknown): value is Line & Parameters<typeof auditText>[0] {
  return (
    typeof value === 'object' &&
    value !== null &&
    'seq' in value &&
    Number.isSafeInteger(value.seq) &&
    'prev_hash' in value &&
    typeof value.prev_hash === 'string' &&
    'hash' in value &&
    typeof value.hash === 'string' &&
    'details' in value &&
    typeof value.details === 'object' &&
    value.details !== null
  )
}
