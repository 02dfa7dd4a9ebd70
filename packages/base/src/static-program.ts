/** Machine code with the memory it needs, both where it expects them. */
export interface StaticProgramParts {
  /** x86-64, position-dependent or not; runs from its first byte on. */
  readonly code: Buffer
  /** A page of its own, empty at the start. */
  readonly memoryAddress: bigint
  readonly memoryBytes: bigint
}

const CODE_ADDRESS = 0x400000n
const FILE_HEADER_BYTES = 64
const SEGMENT_HEADER_BYTES = 56
const HEADERS_BYTES = FILE_HEADER_BYTES + 2 * SEGMENT_HEADER_BYTES
const READ_EXECUTE = 5
const READ_WRITE = 6

/** A static ELF executable of a few hundred bytes: for programs so small that no compiler is asked of anybody. */
export function staticProgram({ code, memoryAddress, memoryBytes }: StaticProgramParts): Buffer {
  const header = Buffer.alloc(FILE_HEADER_BYTES)
  header.write('\x7fELF', 0, 'latin1')
  header.set([2, 1, 1], 4) // 64 bits, little-endian, version 1
  header.writeUInt16LE(2, 16) // executable
  header.writeUInt16LE(62, 18) // x86-64
  header.writeUInt32LE(1, 20)
  header.writeBigUInt64LE(CODE_ADDRESS + BigInt(HEADERS_BYTES), 24) // entry
  header.writeBigUInt64LE(BigInt(FILE_HEADER_BYTES), 32) // segment headers follow
  header.writeUInt16LE(FILE_HEADER_BYTES, 52)
  header.writeUInt16LE(SEGMENT_HEADER_BYTES, 54)
  header.writeUInt16LE(2, 56)
  const fileBytes = BigInt(HEADERS_BYTES + code.length)
  return Buffer.concat([
    header,
    segment(READ_EXECUTE, CODE_ADDRESS, fileBytes, fileBytes),
    segment(READ_WRITE, memoryAddress, 0n, memoryBytes),
    code,
  ])
}

function segment(flags: number, address: bigint, fileBytes: bigint, memoryBytes: bigint): Buffer {
  const header = Buffer.alloc(SEGMENT_HEADER_BYTES)
  header.writeUInt32LE(1, 0) // load
  header.writeUInt32LE(flags, 4)
  header.writeBigUInt64LE(address, 16)
  header.writeBigUInt64LE(address, 24)
  header.writeBigUInt64LE(fileBytes, 32)
  header.writeBigUInt64LE(memoryBytes, 40)
  header.writeBigUInt64LE(0x1000n, 48)
  return header
}
