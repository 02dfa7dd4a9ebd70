import { starterLayout } from '@wrenn/base'

const { scriptAddress, headerBytes, callBytes, maxScriptBytes } = starterLayout

/** Bits 0 to 191 by errno; the highest errno is 133. */
const TOLERATED_BYTES = 24
const RESULTS_AT = headerBytes
const RESULT_BYTES = 8
const WORD_BYTES = 4
const END_OF_LIST = -1

const toleratedSets = ['nothing', 'anything', 'chosen'] as const
/** What may go wrong with a call without ending its list; `chosen`: the errnos that the script was made with. */
type Tolerated = (typeof toleratedSets)[number]

/** A place in a list of calls that is known once it is reached. */
export interface Label {
  address: number
}

export interface ScriptCall {
  /** Number of the system call, x86-64. */
  readonly number: number
  readonly args: readonly number[]
  /** Where its result goes: the address of a number, or the first argument of the call after this one. @default nowhere */
  readonly result?: number | 'next'
  /** @default 'nothing' */
  readonly tolerated?: Tolerated
  /** The call to go on with when this one fails; needed unless everything is tolerated. */
  readonly orElse?: Label
}

export interface ScriptOptions {
  /** How many results come back. */
  readonly results: number
  /** What `chosen` means. */
  readonly chosen: readonly number[]
}

interface Placed {
  readonly at: number
  readonly bytes: Buffer | string
}

/**
 * A script for the process starter (`processStarter` of @wrenn/base says what one is). First the data that calls point to, then
 * the lists of calls.
 */
export class Script {
  readonly #options: ScriptOptions
  /** Where the bits of errnos begin: of nothing, of anything, of those chosen. */
  readonly #toleratedAt: number
  readonly #data: Placed[] = []
  readonly #calls: (ScriptCall | undefined)[] = []
  #end: number
  /** Where the first call is; set when the first one is added. */
  #firstCall = 0
  #start = 0
  #born = 0

  constructor(options: ScriptOptions) {
    this.#options = options
    // After the results that come back is room for one that nobody asks for.
    this.#toleratedAt = RESULTS_AT + (options.results + 1) * RESULT_BYTES
    this.#end = this.#toleratedAt + toleratedSets.length * TOLERATED_BYTES
  }

  /** The address of a result that comes back with the answer. */
  result(index: number): number {
    return scriptAddress + RESULTS_AT + index * RESULT_BYTES
  }

  /** How many bytes the answer has. */
  get answerBytes(): number {
    return RESULTS_AT + this.#options.results * RESULT_BYTES
  }

  /** Its bytes so far, for who must know whether it still fits. */
  get bytes(): number {
    return this.#end + this.#calls.length * callBytes
  }

  get fits(): boolean {
    return this.bytes <= maxScriptBytes
  }

  /** Address of the text, ended by a NUL. */
  text(text: string): number {
    return this.#place(text, Buffer.byteLength(text) + 1)
  }

  data(bytes: Buffer): number {
    this.#end = (this.#end + 7) & ~7
    return this.#place(bytes, bytes.length)
  }

  /** Address of an array of addresses, ended by a null pointer. */
  pointers(addresses: readonly number[]): number {
    const bytes = Buffer.alloc((addresses.length + 1) * 8)
    for (const [index, address] of addresses.entries()) bytes.writeUInt32LE(address, index * 8)
    return this.data(bytes)
  }

  /** Adds a call to the list; gives its address. */
  call(call: ScriptCall): number {
    const address = this.#nextAddress()
    this.#calls.push(call)
    return address
  }

  /** Here the list goes on for who failed with this label. */
  place(label: Label): void {
    label.address = this.#nextAddress()
  }

  /** Begins the list of the starter itself, or that of the process it makes. */
  begin(list: 'starter' | 'process'): void {
    if (list === 'starter') this.#start = this.#nextAddress()
    else this.#born = this.#nextAddress()
  }

  /** Ends the list of the starter: the answer goes out. */
  answer(): void {
    this.#nextAddress()
    this.#calls.push(undefined)
  }

  finish(): Buffer {
    const bytes = Buffer.alloc(this.bytes)
    // A word at a time: an interpreter would spend most of this in the checks of the methods of buffers.
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / WORD_BYTES)
    words[0] = bytes.length
    words[2] = this.answerBytes
    words[4] = this.#born
    words[10] = this.#start
    const anything = this.#tolerated('anything')
    const chosen = this.#tolerated('chosen')
    bytes.fill(0xff, anything, anything + TOLERATED_BYTES)
    for (const errno of this.#options.chosen) {
      const at = chosen + (errno >> 3)
      bytes.writeUInt8(bytes.readUInt8(at) | (1 << (errno & 7)), at)
    }
    for (const { at, bytes: content } of this.#data) {
      if (typeof content === 'string') bytes.write(content, at)
      else bytes.set(content, at)
    }
    for (const [index, call] of this.#calls.entries()) this.#write(words, this.#firstCall + index * callBytes, call)
    return bytes
  }

  #place(content: Buffer | string, length: number): number {
    const at = this.#end
    this.#data.push({ at, bytes: content })
    this.#end += length
    return scriptAddress + at
  }

  #nextAddress(): number {
    if (this.#firstCall === 0) this.#firstCall = this.#end = (this.#end + 7) & ~7
    return scriptAddress + this.#firstCall + this.#calls.length * callBytes
  }

  #write(words: Uint32Array, at: number, call: ScriptCall | undefined): void {
    // Numbers are at most 32 bits wide: flags, descriptors and addresses of ours. What is above stays zero.
    const word = at / WORD_BYTES
    words[word] = call?.number ?? END_OF_LIST
    if (call === undefined) return
    for (let index = 0; index < call.args.length; index++) words[word + 2 + index * 2] = call.args[index] ?? 0
    const next = scriptAddress + at + callBytes + 8
    words[word + 14] = call.result === 'next' ? next : (call.result ?? this.result(this.#options.results))
    words[word + 16] = scriptAddress + this.#tolerated(call.tolerated ?? 'nothing')
    words[word + 18] = call.orElse?.address ?? 0
  }

  #tolerated(what: Tolerated): number {
    return this.#toleratedAt + toleratedSets.indexOf(what) * TOLERATED_BYTES
  }
}
