import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Range } from './fuse-wire.js'

/** fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, which Node.js does not have. */
const PROGRAM = `$| = 1; my $call = shift;
while (<STDIN>) { my ($at, $length) = split; print syscall($call, 3, 3, $at + 0, $length + 0) == 0 ? "0\\n" : ($! + 0) . "\\n"; }`
const FALLOCATE = { x64: 285, arm64: 47 } as const

/** Makes holes in an open file, one after the other. */
export class HolePuncher {
  readonly #fd: number
  #line: ((range: Range) => Promise<void>) | undefined

  constructor(fd: number) {
    this.#fd = fd
  }

  async punch(range: Range): Promise<void> {
    this.#line ??= this.#start()
    await this.#line(range)
  }

  #start(): (range: Range) => Promise<void> {
    const call = FALLOCATE[process.arch as keyof typeof FALLOCATE] // others run no guests
    const child = spawn('perl', ['-e', PROGRAM, String(call)], { stdio: ['pipe', 'pipe', 'ignore', this.#fd] })
    const { stdin, stdout } = child
    if (stdin === null || stdout === null) throw new Error('both are pipes')
    const waiting: { resolve: () => void; reject: (error: Error) => void }[] = []
    createInterface(stdout).on('line', (answer) => {
      const one = waiting.shift()
      if (answer === '0') one?.resolve()
      else one?.reject(new Error(`a hole could not be made (errno ${answer})`))
    })
    let hasEnded = false
    const ended = (): Error => new Error('what makes holes has ended')
    const end = (): void => {
      hasEnded = true
      for (const { reject } of waiting.splice(0)) reject(ended())
    }
    child.on('error', end).on('exit', end)
    stdin.on('error', end)
    return async ({ offset, length }) => {
      if (hasEnded) throw ended()
      await new Promise<void>((resolve, reject) => {
        waiting.push({ resolve, reject })
        stdin.write(`${offset} ${length}\n`)
      })
    }
  }
}
