import { starterLayout } from './starter-layout.js'
import { staticProgram } from './static-program.js'

/**
 * A 367-byte program for the guest that starts processes: it waits inside the template's snapshot and is as cheap to copy as it is
 * small, where the agent would have to copy the page tables of all of Node.js. It decides nothing. A request is a script: system
 * calls, each with its arguments, that it makes in order; what is done for a process stands in the scripts of the guest agent.
 *
 * It reads a script from descriptor 0 to `scriptAddress`; all numbers have 64 bits, little-endian:
 *
 *     header  +0 bytes of the script   +8 bytes of the answer   +16 address of the first call of a new process
 *             +24, +32 address and result of the call that failed last   +40 address of the first call
 *     call    +0 number (negative: end)   +8 … +48 arguments   +56 where its result goes
 *             +64 a bit for each errno that does not matter   +72 address of the call that is next after any other
 *
 * Results may go into the arguments of later calls. After the last call the script's first bytes are the answer, to descriptor 4.
 * A process made by clone3(2) goes on at its own first call; it must share memory and hold its parent (CLONE_VM, CLONE_VFORK)
 * until it runs its program, and leaves what it met in the script. How processes ended is told on descriptor 1: pid and wait
 * status. When descriptor 0 is closed it ends. No step uses a stack. System call numbers: Linux x86-64, `man 2 syscall`.
 */
const CODE = Buffer.from(
  [
    'bd00100010', //       mov  ebp, SCRIPT
    '31ff', //             xor  edi, edi             rt_sigprocmask: hold SIGCHLD back
    '488db500ffffff', //   lea  rsi, [rbp - 256]
    'c70600000100', //     mov  dword [rsi], 1 << 16
    '31d2', //             xor  edx, edx
    '41ba08000000', //     mov  r10d, 8
    'b80e000000', //       mov  eax, 14
    '0f05', //             syscall
    '83cfff', //           or   edi, -1              signalfd4: it comes as input
    '488db500ffffff', //   lea  rsi, [rbp - 256]
    'ba08000000', //       mov  edx, 8
    '41ba00000800', //     mov  r10d, SFD_CLOEXEC
    'b821010000', //       mov  eax, 289
    '0f05', //             syscall
    'c745c401000000', //   mov  dword [rbp - 60], POLLIN
    '8945c8', //           mov  [rbp - 56], eax
    'c745cc01000000', //   mov  dword [rbp - 52], POLLIN
    '488d7dc0', // wait:   lea  rdi, [rbp - 64]      poll: descriptor 0 and signals
    'be02000000', //       mov  esi, 2
    '83caff', //           or   edx, -1
    'b807000000', //       mov  eax, 7
    '0f05', //             syscall
    '85c0', //             test eax, eax
    '7ee9', //             jle  wait
    'f645ce01', //         test byte [rbp - 50], POLLIN
    '7448', //             jz   script
    '31c0', //             xor  eax, eax             read: take the signal
    '8b7dc8', //           mov  edi, [rbp - 56]
    '488db500feffff', //   lea  rsi, [rbp - 512]
    'ba80000000', //       mov  edx, 128
    '0f05', //             syscall
    '83cfff', // ended:    or   edi, -1              wait4: any child, WNOHANG
    '488d7588', //         lea  rsi, [rbp - 120]
    'ba01000000', //       mov  edx, 1
    '4531d2', //           xor  r10d, r10d
    'b83d000000', //       mov  eax, 61
    '0f05', //             syscall
    '85c0', //             test eax, eax
    '7e1b', //             jle  script
    '48894580', //         mov  [rbp - 128], rax
    '488d7580', //         lea  rsi, [rbp - 128]     write: pid and status
    'bf01000000', //       mov  edi, 1
    'ba10000000', //       mov  edx, 16
    'b801000000', //       mov  eax, 1
    '0f05', //             syscall
    'ebcb', //             jmp  ended
    '66837dc600', // script: cmp word [rbp - 58], 0
    '7494', //             je   wait
    '31db', //             xor  ebx, ebx
    '31ff', // more:       xor  edi, edi             read: until it is complete
    '488d741d00', //       lea  rsi, [rbp + rbx]
    'ba00008000', //       mov  edx, MAX_SCRIPT_BYTES
    '29da', //             sub  edx, ebx
    '31c0', //             xor  eax, eax
    '0f05', //             syscall
    '4885c0', //           test rax, rax
    '0f8e8d000000', //     jle  done                 closed: the agent is gone
    '4801c3', //           add  rbx, rax
    '4883fb08', //         cmp  rbx, 8
    '72dc', //             jb   more
    '483b5d00', //         cmp  rbx, [rbp]
    '72d6', //             jb   more
    '488b5d28', //         mov  rbx, [rbp + 40]
    '8b03', // step:       mov  eax, [rbx]
    '85c0', //             test eax, eax
    '785c', //             js   answer
    '488b7b08', //         mov  rdi, [rbx + 8]
    '488b7310', //         mov  rsi, [rbx + 16]
    '488b5318', //         mov  rdx, [rbx + 24]
    '4c8b5320', //         mov  r10, [rbx + 32]
    '4c8b4328', //         mov  r8, [rbx + 40]
    '4c8b4b30', //         mov  r9, [rbx + 48]
    '0f05', //             syscall
    '488b4b38', //         mov  rcx, [rbx + 56]
    '488901', //           mov  [rcx], rax
    '483d00f0ffff', //     cmp  rax, -4096
    '7718', //             ja   failed
    '85c0', //             test eax, eax
    '7508', //             jnz  next
    '813bb3010000', //     cmp  dword [rbx], 435     clone3 that gave 0: this is the new process
    '7406', //             je   born
    '4883c350', // next:   add  rbx, 80
    'ebbf', //             jmp  step
    '488b5d10', // born:   mov  rbx, [rbp + 16]
    'ebb9', //             jmp  step
    '89c1', // failed:     mov  ecx, eax
    'f7d9', //             neg  ecx
    '488b5340', //         mov  rdx, [rbx + 64]
    '0fa30a', //           bt   [rdx], ecx
    '72e7', //             jc   next
    '48895d18', //         mov  [rbp + 24], rbx
    '48894520', //         mov  [rbp + 32], rax
    '488b5b48', //         mov  rbx, [rbx + 72]
    'eb9e', //             jmp  step
    'bf04000000', // answer: mov edi, 4              write
    '4889ee', //           mov  rsi, rbp
    '488b5508', //         mov  rdx, [rbp + 8]
    'b801000000', //       mov  eax, 1
    '0f05', //             syscall
    'e9eafeffff', //       jmp  wait
    '31ff', // done:       xor  edi, edi             exit_group
    'b8e7000000', //       mov  eax, 231
    '0f05', //             syscall
  ].join(''),
  'hex',
)

const PAGE_BYTES = 0x1000

/** The program as a static ELF executable, or `undefined` on another architecture than x86-64. */
export function processStarter(arch: string = process.arch): Buffer | undefined {
  if (arch !== 'x64') return undefined
  const { scriptAddress, maxScriptBytes } = starterLayout
  // The page before the script has the program's own variables.
  return staticProgram({
    code: CODE,
    memoryAddress: BigInt(scriptAddress - PAGE_BYTES),
    memoryBytes: BigInt(PAGE_BYTES + maxScriptBytes),
  })
}
