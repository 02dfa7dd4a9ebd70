import type { Entry } from './entry.js'

const VARINT = 0
const LENGTH_DELIMITED = 2

/** `filesystem.ListDirResponse` in the binary form: one field, the entries. */
export function encodeEntries(entries: readonly Entry[]): Uint8Array {
  const all = new WireWriter()
  const one = new WireWriter()
  for (const entry of entries) {
    one.clear()
    writeEntry(one, entry)
    all.message(1, one)
  }
  return all.bytes()
}

/** Field numbers of `filesystem.EntryInfo`. Like the general encoder it leaves out what has its default value. */
function writeEntry(to: WireWriter, entry: Entry): void {
  to.text(1, entry.name ?? '')
  to.number(2, entry.type ?? 0)
  to.text(3, entry.path ?? '')
  to.number(4, Number(entry.size ?? 0))
  to.number(5, entry.mode ?? 0)
  to.text(6, entry.permissions ?? '')
  to.text(7, entry.owner ?? '')
  to.text(8, entry.group ?? '')
  if (entry.modifiedTime !== undefined) {
    const time = new WireWriter(32)
    time.number(1, Number(entry.modifiedTime.seconds ?? 0))
    time.number(2, entry.modifiedTime.nanos ?? 0)
    to.message(9, time)
  }
  if (entry.symlinkTarget !== undefined) to.text(10, entry.symlinkTarget, true)
  for (const [key, value] of Object.entries(entry.metadata ?? {})) {
    const pair = new WireWriter(256)
    pair.text(1, key, true)
    pair.text(2, value, true)
    to.message(11, pair)
  }
  to.number(12, entry.isSymlink ? 1 : 0)
}

/** Writes fields of the protobuf wire format, https://protobuf.dev/programming-guides/encoding/ */
class WireWriter {
  #buffer: Buffer
  #length = 0

  constructor(capacity = 4_096) {
    this.#buffer = Buffer.allocUnsafe(capacity)
  }

  clear(): void {
    this.#length = 0
  }

  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }

  text(field: number, text: string, evenEmpty = false): void {
    if (text === '' && !evenEmpty) return
    const length = Buffer.byteLength(text)
    this.#reserve(length + 20)
    this.#varint(field * 8 + LENGTH_DELIMITED)
    this.#varint(length)
    this.#buffer.write(text, this.#length)
    this.#length += length
  }

  /** An integer of up to 53 bits; 0 is left out. */
  number(field: number, value: number): void {
    if (value === 0) return
    this.#reserve(20)
    this.#varint(field * 8 + VARINT)
    if (value > 0) this.#varint(value)
    else this.#negative(value)
  }

  message(field: number, message: WireWriter): void {
    const length = message.#length
    this.#reserve(length + 20)
    this.#varint(field * 8 + LENGTH_DELIMITED)
    this.#varint(length)
    message.#buffer.copy(this.#buffer, this.#length, 0, length)
    this.#length += length
  }

  #varint(value: number): void {
    let rest = value
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) this.#buffer[this.#length++] = (rest % 0x80) + 0x80
    this.#buffer[this.#length++] = rest
  }

  /** Negative numbers take ten bytes: their 64 bits in two's complement. */
  #negative(value: number): void {
    let rest = BigInt.asUintN(64, BigInt(value))
    for (; rest >= 0x80n; rest >>= 7n) this.#buffer[this.#length++] = Number(rest % 0x80n) + 0x80
    this.#buffer[this.#length++] = Number(rest)
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + bytes))
    this.#buffer.copy(larger, 0, 0, this.#length)
    this.#buffer = larger
  }
}
