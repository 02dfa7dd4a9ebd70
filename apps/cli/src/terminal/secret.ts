import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'

/** One line of stdin. At a terminal `prompt` asks for it, and what is typed is not shown. */
export async function readSecret(prompt: string): Promise<string> {
  const isTerminal = process.stdin.isTTY === true
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: isTerminal })
  if (isTerminal) process.stderr.write(prompt)
  try {
    const first = await lines[Symbol.asyncIterator]().next()
    return first.done ? '' : first.value
  } finally {
    lines.close()
    if (isTerminal) process.stderr.write('\n')
  }
}
