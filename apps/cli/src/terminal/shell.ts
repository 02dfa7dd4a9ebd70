import type { PtyHandle } from '@wrenn/sdk'
import { writeFully } from '../output.js'
import { EscapeFilter } from './escape.js'

interface ShellEnd {
  readonly exitCode: number
  readonly detached: boolean
}

/** Columns and lines of our own terminal; 80 × 24 where there is none. */
export function terminalSize(): { cols: number; rows: number } {
  return { cols: process.stdout.columns || 80, rows: process.stdout.rows || 24 }
}

/** Joins our terminal to `pty` until its program ends or the person detaches. Always gives our terminal back as it was. */
export async function joinTerminal(pty: PtyHandle): Promise<ShellEnd> {
  const { stdin, stdout } = process
  const filter = new EscapeFilter()
  let detached = false
  // Keys in flight when the connection is gone have nowhere to go; the loop below says why it is gone.
  const drop = (): void => {}
  let sent = Promise.resolve()
  const onKeys = (typed: Buffer): void => {
    const { pass, detach } = stdin.isTTY ? filter.feed(typed) : { pass: typed, detach: false }
    if (pass.length > 0) sent = sent.then(() => pty.write(pass)).catch(drop)
    if (detach) {
      detached = true
      // What was typed before, in the same burst perhaps, still gets there.
      void sent.then(() => pty.disconnect())
    }
  }
  const onResize = (): void => {
    const { cols, rows } = terminalSize()
    pty.resize(cols, rows).catch(drop)
  }
  if (stdin.isTTY) stdin.setRawMode(true)
  stdin.on('data', onKeys)
  stdout.on('resize', onResize)
  try {
    for await (const event of pty) {
      if (event.type === 'exit') return { exitCode: event.exitCode, detached }
      if (event.type !== 'lost') await writeFully(stdout, event.data)
    }
    return { exitCode: 0, detached }
  } finally {
    stdin.off('data', onKeys)
    stdout.off('resize', onResize)
    if (stdin.isTTY) stdin.setRawMode(false)
    stdin.pause()
  }
}
