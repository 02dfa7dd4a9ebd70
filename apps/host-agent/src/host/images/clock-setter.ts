/**
 * A 200-byte program for the guest: reads 16 bytes (seconds and nanoseconds, 64 bits each, little-endian) from stdin, sets
 * CLOCK_REALTIME to them, answers one byte (0, or the low byte of -errno), and waits for the next.
 *
 * It waits inside the template's snapshot, so that a restored guest gets its time with two writes instead of a new process,
 * which costs 80 ms on an emulated CPU. System call numbers: Linux x86-64, `man 2 syscall`.
 */
const CODE = Buffer.from(
  [
    '4883ec10', //       sub  rsp, 16          the buffer
    '4889e6', // loop:   mov  rsi, rsp
    '31c0', //           xor  eax, eax         read
    '31ff', //           xor  edi, edi         stdin
    'ba10000000', //     mov  edx, 16
    '0f05', //           syscall
    '83f810', //         cmp  eax, 16
    '751e', //           jne  exit             closed: the agent is gone
    'b8e3000000', //     mov  eax, 227         clock_settime
    '31ff', //           xor  edi, edi         CLOCK_REALTIME
    '0f05', //           syscall
    '8806', //           mov  [rsi], al
    'b801000000', //     mov  eax, 1           write
    'bf01000000', //     mov  edi, 1           stdout
    'ba01000000', //     mov  edx, 1
    '0f05', //           syscall
    'ebcf', //           jmp  loop
    'b83c000000', // exit: mov eax, 60         exit
    '31ff', //           xor  edi, edi
    '0f05', //           syscall
  ].join(''),
  'hex',
)

const BASE_ADDRESS = 0x400000n
const HEADERS_BYTES = 64 + 56

/** The program as a static ELF executable, or `undefined` on another architecture than x86-64. */
export function clockSetter(arch: string = process.arch): Buffer | undefined {
  if (arch !== 'x64') return undefined
  const file = Buffer.alloc(HEADERS_BYTES)
  file.write('\x7fELF', 0, 'latin1')
  file.set([2, 1, 1], 4) // 64 bits, little-endian, version 1
  file.writeUInt16LE(2, 16) // executable
  file.writeUInt16LE(62, 18) // x86-64
  file.writeUInt32LE(1, 20)
  file.writeBigUInt64LE(BASE_ADDRESS + BigInt(HEADERS_BYTES), 24) // entry
  file.writeBigUInt64LE(64n, 32) // program headers follow
  file.writeUInt16LE(64, 52)
  file.writeUInt16LE(56, 54)
  file.writeUInt16LE(1, 56)
  const size = BigInt(HEADERS_BYTES + CODE.length)
  file.writeUInt32LE(1, 64) // load
  file.writeUInt32LE(5, 68) // readable, executable
  file.writeBigUInt64LE(BASE_ADDRESS, 80)
  file.writeBigUInt64LE(BASE_ADDRESS, 88)
  file.writeBigUInt64LE(size, 96)
  file.writeBigUInt64LE(size, 104)
  file.writeBigUInt64LE(0x1000n, 112)
  return Buffer.concat([file, CODE])
}
