import { writeSync } from 'node:fs'
import { Process, Signal } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { GuestUser } from '../identity/users.js'
import { AgentHarness, asUserHeader, ptyModule } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'
import { NativePty } from './native-pty.js'
import { PtyProcess } from './pty-process.js'
import { KILLED, type ProcessEnd } from './started-child.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

const terminal = { size: { cols: 100, rows: 30 } }
const shell = (script: string) => ({ cmd: '/bin/sh', args: ['-c', script] })

/** A terminal kept open, with what it has shown so far. */
function interactive(tag: string, cmd: string, args: readonly string[], headers = {}) {
  const client = harness.client(Process, 'binary', headers)
  const process = { selector: { case: 'tag', value: tag } } as const
  let shown = ''
  let ended: number | undefined
  const finished = (async () => {
    for await (const { event } of client.start({
      process: { cmd, args: [...args], envs: { PS1: '> ' } },
      pty: terminal,
      tag,
    })) {
      if (event?.event.case === 'data') shown += Buffer.from(event.event.value.output.value ?? []).toString()
      if (event?.event.case === 'end') ended = event.event.value.exitCode
    }
    return ended
  })()
  return {
    client,
    process,
    finished,
    type: (text: string) => client.sendInput({ process, input: { input: { case: 'pty', value: Buffer.from(text) } } }),
    shows: (text: string) => eventually(`the terminal to show ${text}`, () => shown.includes(text)),
    text: () => shown,
  }
}

describe('a process behind a terminal', () => {
  it('loses nothing of 27 KB of output in 200 runs', async () => {
    const client = harness.client(Process)
    const script = 'i=0; while [ $i -lt 1000 ]; do echo "line $i of the terminal test"; i=$((i+1)); done; exit 7'
    const expected = Array.from({ length: 1000 }, (_, i) => `line ${i} of the terminal test\r\n`).join('')
    for (let run = 0; run < 200; run++) {
      const { pty, end } = await collect(client.start({ process: shell(script), pty: terminal }))
      expect(pty.toString() === expected, `run ${run}: ${pty.length} of ${expected.length} bytes`).toBe(true)
      expect(end?.exitCode).toBe(7)
    }
  }, 120_000)

  it('loses nothing when the agent is held up for longer than a terminal may be silent', async () => {
    const root: GuestUser = { name: 'root', uid: 0, gid: 0, home: '/', shell: '/bin/sh', groups: [] }
    const pty = new NativePty(ptyModule()).open(terminal.size, root)
    let exit = (_: ProcessEnd): void => {}
    const ended = new Promise<ProcessEnd>((resolve) => {
      exit = resolve
    })
    const subject = new PtyProcess({ pid: 0, ended }, { pid: 0, cgroup: undefined, mark: undefined }, pty, undefined)
    let shown = ''
    const told = new Promise<void>((resolve) => {
      const onOutput = (_: string, chunk: Buffer): void => {
        shown += chunk.toString()
      }
      subject.start({ onOutput, onExit: () => resolve() })
    })
    writeSync(pty.slave, 'late\n')
    exit(KILLED)
    await ended // the end is heard of now, and what was written is not yet
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000)
    await told
    expect(shown).toBe('late\r\n')
  })

  it('takes a whole character back, not one of its bytes', async () => {
    const read = interactive('erase', '/bin/sh', [
      '-c',
      'stty -a | grep -o -e "-\\?iutf8"; read line; echo "<$line>" | od -An -tx1',
    ])
    await read.shows('iutf8')
    await read.type('aé\x7f\n')
    expect(await read.finished).toBe(0)
    expect(read.text()).toMatch(/^iutf8\r\n/)
    expect(read.text()).toContain('3c 61 3e 0a')
  })

  it('has a controlling terminal of the wanted size and a TERM', async () => {
    const { pty } = await collect(
      harness.client(Process).start({ process: shell('stty size; echo $TERM; tty </dev/tty'), pty: terminal }),
    )
    expect(pty.toString()).toMatch(/^30 100\r\nxterm-256color\r\n\/dev\/(pts\/\d+|tty)\r\n$/)
  })

  it('belongs to its user', async () => {
    const nobody = harness.client(Process, 'binary', asUserHeader('nobody'))
    const { pty } = await collect(nobody.start({ process: shell('id -un; echo again > $(tty)'), pty: terminal }))
    expect(pty.toString()).toBe('nobody\r\nagain\r\n')
  })

  it('is resized, interrupted with ^C and ended with its exit code', async () => {
    const session = interactive('resized', '/bin/bash', ['--norc', '-i'])
    await session.shows('> ')
    await session.client.update({ process: session.process, pty: { size: { cols: 132, rows: 43 } } })
    await session.type('stty size\n')
    await session.shows('43 132')
    // What says "in front" has the terminal; while bash starts it, a ^C may go to bash itself.
    await session.type(`sh -c 'echo in fr""ont; exec sleep 100'\n`)
    await session.shows('in front')
    await session.type('\x03')
    await session.shows('^C')
    await session.type('exit 5\n')
    expect(await session.finished).toBe(5)
  })

  it('has job control', async () => {
    const session = interactive('jobs', '/bin/bash', ['--norc', '-i'])
    await session.shows('> ')
    await session.type('sleep 100 &\n')
    await session.type('jobs; kill %1; wait; echo "over"\n')
    await session.shows('Running')
    await session.shows('over')
    await session.type('exit\n')
    await session.finished
    expect(session.text()).not.toContain('no job control')
  })

  it('is killed with all its jobs', async () => {
    const session = interactive('killed', '/bin/bash', ['--norc', '-i'])
    await session.shows('> ')
    await session.type('sleep 1234 & echo job=$!\n')
    await eventually('the job', () => /job=\d+/.test(session.text()))
    await session.client.sendSignal({ process: session.process, signal: Signal.SIGKILL })
    expect(await session.finished).toBe(-1)
  })

  it('ends although a background process floods the terminal', async () => {
    const { pty, end } = await collect(
      harness.client(Process).start({ process: shell('trap "" HUP; yes & echo started; exit 2'), pty: terminal }),
    )
    expect(end?.exitCode).toBe(2)
    expect(pty.toString()).toContain('started')
  })

  it('ends although its output was stopped with ^S', async () => {
    const session = interactive('stopped', '/bin/bash', ['--norc', '-i'])
    await session.shows('> ')
    await session.type('\x13')
    await session.client.sendSignal({ process: session.process, signal: Signal.SIGKILL })
    expect(await session.finished).toBe(-1)
  })

  it('does not show its terminal to other processes', async () => {
    const session = interactive('private', '/bin/cat', [])
    await eventually('the terminal', async () =>
      (await session.client.list({})).processes.some((each) => each.tag === 'private'),
    )
    const { stdout } = await collect(
      harness.client(Process).start({ process: shell('readlink /proc/$$/fd/*'), stdin: false }),
    )
    expect(stdout.toString()).not.toMatch(/ptmx|pts/)
    await session.type('\x04')
    expect(await session.finished).toBe(0)
  })
})
