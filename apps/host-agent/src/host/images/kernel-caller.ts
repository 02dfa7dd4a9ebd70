import { staticProgram } from '@wrenn/base'

/**
 * A 250-byte program for the guest that makes system calls on request, for what Node.js has no function for: setting the
 * clock, seeding the random generator, ending other programs' connections.
 *
 * It reads frames of 1024 bytes from stdin into a buffer at `BUFFER`: eight numbers of 64 bits, little-endian (call, six
 * arguments, bytes to answer), then data that arguments may point to. It makes the call, puts the result over the first number
 * and answers the buffer's first bytes, as many as asked. The buffer has 64 KiB, so that a call may fill more than came in.
 *
 * It waits inside the template's snapshot, so that a restored guest needs no new process for this, which costs 80 ms on an
 * emulated CPU. System call numbers: Linux x86-64, `man 2 syscall`.
 */
const CODE = Buffer.from(
  [
    'bd00006000', //     mov  ebp, BUFFER
    '31c0', // next:     xor  eax, eax         read
    '31ff', //           xor  edi, edi         stdin
    '89ee', //           mov  esi, ebp
    'ba00040000', //     mov  edx, 1024
    '0f05', //           syscall
    '3d00040000', //     cmp  eax, 1024
    '7536', //           jne  done             closed: the agent is gone
    '488b4500', //       mov  rax, [rbp]       the call
    '488b7d08', //       mov  rdi, [rbp + 8]   its arguments
    '488b7510', //       mov  rsi, [rbp + 16]
    '488b5518', //       mov  rdx, [rbp + 24]
    '4c8b5520', //       mov  r10, [rbp + 32]
    '4c8b4528', //       mov  r8, [rbp + 40]
    '4c8b4d30', //       mov  r9, [rbp + 48]
    '0f05', //           syscall
    '48894500', //       mov  [rbp], rax       its result
    'b801000000', //     mov  eax, 1           write
    'bf01000000', //     mov  edi, 1           stdout
    '89ee', //           mov  esi, ebp
    '488b5538', //       mov  rdx, [rbp + 56]
    '0f05', //           syscall
    'ebb6', //           jmp  next
    'b83c000000', // done: mov eax, 60         exit
    '31ff', //           xor  edi, edi
    '0f05', //           syscall
  ].join(''),
  'hex',
)

const BUFFER = 0x600000n
const BUFFER_BYTES = 0x10000n

/** The program as a static ELF executable, or `undefined` on another architecture than x86-64. */
export function kernelCaller(arch: string = process.arch): Buffer | undefined {
  if (arch !== 'x64') return undefined
  return staticProgram({ code: CODE, memoryAddress: BUFFER, memoryBytes: BUFFER_BYTES })
}
