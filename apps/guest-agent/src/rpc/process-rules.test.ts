import { execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Process, Signal, type StreamInputRequestSchema } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader, TESTER } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'

const UNIFIED = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((dir) => existsSync(join(dir, 'cgroup.procs')))
const shell = (script: string) => ({ cmd: '/bin/sh', args: ['-c', script] })
const byTag = (value: string) => ({ selector: { case: 'tag', value } }) as const
const byPid = (value: number) => ({ selector: { case: 'pid', value } }) as const

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

async function isListed(client: ReturnType<typeof harness.client<typeof Process>>, tag: string): Promise<boolean> {
  return (await client.list({})).processes.some((each) => each.tag === tag)
}

describe('the user of a process', () => {
  it('has its supplementary groups, behind pipes and behind a terminal', async () => {
    const client = harness.client(Process, 'binary', asUserHeader(TESTER.name))
    const expected = [TESTER.gid, ...TESTER.groups].sort().join(' ')
    const process = shell(
      'id -u; id -g; id -G | tr " " "\\n" | sort | tr "\\n" " "; grep -h NoNewPrivs /proc/self/status',
    )
    const piped = await collect(client.start({ process, stdin: false }))
    expect(piped.stderr.toString()).toBe('')
    const lines = [String(TESTER.uid), String(TESTER.gid), `${expected} NoNewPrivs:\t0`]
    expect(piped.stdout.toString().trim().split('\n')).toEqual(lines)
    const terminal = await collect(client.start({ process, pty: { size: { cols: 80, rows: 24 } } }))
    expect(terminal.pty.toString().trim().split('\r\n')).toEqual(lines)
  })

  it('starts in its home unless told otherwise, and gets 127 for what does not exist', async () => {
    const client = harness.client(Process, 'json', asUserHeader(TESTER.name))
    expect((await collect(client.start({ process: { cmd: 'pwd' } }))).stdout.toString()).toBe(`${harness.home}\n`)
    const inTmp = await collect(client.start({ process: { cmd: 'pwd', cwd: '/tmp' } }))
    expect(inTmp.stdout.toString()).toBe('/tmp\n')
    const unknown = await collect(client.start({ process: { cmd: 'no-such-program' }, stdin: false }))
    expect(unknown.end?.exitCode).toBe(127)
    const forbidden = await collect(client.start({ process: { cmd: '/etc/passwd' }, stdin: false }))
    expect(forbidden.end?.exitCode).toBe(126)
  })
})

describe('a deadline', () => {
  it('beyond what a timer can hold does not fire at once', async () => {
    const client = harness.client(Process)
    const process = shell('echo alive')
    const result = await collect(client.start({ process, stdin: false, timeoutMs: 4_294_967_295 }))
    expect(result.end).toMatchObject({ exitCode: 0, timedOut: false })
    expect(result.stdout.toString()).toBe('alive\n')
    const slow = await collect(client.start({ process: shell('sleep 0.3'), stdin: false, timeoutMs: 2_147_483_648 }))
    expect(slow.end).toMatchObject({ exitCode: 0, timedOut: false })
  })

  it('leaves the timed_out field false for a process that was killed by hand', async () => {
    const result = await collect(harness.client(Process).start({ process: shell('kill -9 $$'), timeoutMs: 60_000 }))
    expect(result.end).toMatchObject({ timedOut: false, oomKilled: false, signal: 9 })
  })
})

describe('StreamInput', () => {
  it('feeds a process in order, through keepalives, in large pieces', async () => {
    const client = harness.client(Process)
    const result = collect(client.start({ process: { cmd: 'cat' }, tag: 'streamed' }))
    await eventually('the process', () => isListed(client, 'streamed'))
    const piece = Buffer.alloc(3_000_000, 'abc')
    async function* requests(): AsyncGenerator<MessageInitShape<typeof StreamInputRequestSchema>> {
      yield { event: { case: 'start', value: { process: byTag('streamed') } } } as const
      yield { event: { case: 'keepalive', value: {} } } as const
      for (let i = 0; i < 4; i++)
        yield { event: { case: 'data', value: { input: { input: { case: 'stdin', value: piece } } } } } as const
    }
    await client.streamInput(requests())
    await client.closeStdin({ process: byTag('streamed') })
    const { stdout } = await result
    expect(stdout.length).toBe(4 * piece.length)
    expect(stdout.equals(Buffer.concat([piece, piece, piece, piece]))).toBe(true)
  })

  it('refuses input without a start and for an unknown process', async () => {
    const client = harness.client(Process, 'json')
    const data = {
      event: { case: 'data', value: { input: { input: { case: 'stdin', value: Buffer.from('x') } } } },
    } as const
    await expect(
      client.streamInput(
        (async function* () {
          yield data
        })(),
      ),
    ).rejects.toMatchObject({ code: 3 })
    const start = { event: { case: 'start', value: { process: byPid(1) } } } as const
    await expect(
      client.streamInput(
        (async function* () {
          yield start
          yield data
        })(),
      ),
    ).rejects.toMatchObject({ code: 5 })
  })
})

describe('requests that make no sense', () => {
  it('are refused with the documented codes', async () => {
    const client = harness.client(Process, 'json')
    await expect(collect(client.start({}))).rejects.toMatchObject({ code: 3 })
    await expect(collect(client.start({ process: { cmd: 'a\0b' } }))).rejects.toMatchObject({ code: 3 })
    await expect(collect(client.connect({}))).rejects.toMatchObject({ code: 3 })
    await expect(collect(client.connect({ process: byPid(1) }))).rejects.toMatchObject({ code: 5 })
    await expect(client.sendSignal({ process: byPid(1), signal: Signal.SIGKILL })).rejects.toMatchObject({ code: 5 })
    await expect(client.sendSignal({ process: byPid(1) })).rejects.toMatchObject({ code: 3 })
    await expect(client.sendInput({ process: byPid(1) })).rejects.toMatchObject({ code: 5 })
    const result = collect(client.start({ process: shell('sleep 60'), tag: 'pipes', stdin: false }))
    await eventually('the process', () => isListed(client, 'pipes'))
    const process = byTag('pipes')
    await expect(client.update({ process, pty: { size: { cols: 1, rows: 1 } } })).rejects.toMatchObject({ code: 9 })
    await expect(client.closeStdin({ process })).rejects.toMatchObject({ code: 9 })
    await expect(client.sendInput({ process })).rejects.toMatchObject({ code: 3 })
    await client.sendSignal({ process, signal: Signal.SIGKILL })
    await result
  })

  it('do not get past the protocol', async () => {
    const send = async (path: string, contentType: string, body: string | Uint8Array) =>
      (await harness.fetch(path, { method: 'POST', body, headers: { 'content-type': contentType } })).status
    expect(await send('/process.Process/List', 'text/plain', '{}')).toBe(415)
    expect(await send('/process.Process/List', 'application/json', 'not json')).toBe(400)
    expect(await send('/process.Process/List', 'application/proto', Buffer.from([0xff]))).toBe(400)
    expect(await send('/process.Process/Nothing', 'application/json', '{}')).toBe(404)
    expect((await harness.fetch('/process.Process/List')).status).toBe(405)
    const end = async (frame: Buffer) => {
      const headers = { 'content-type': 'application/connect+json' }
      const response = await harness.fetch('/process.Process/Start', { method: 'POST', body: frame, headers })
      return JSON.parse(
        Buffer.from(await response.arrayBuffer())
          .subarray(5)
          .toString(),
      ).error.code
    }
    expect(await end(Buffer.alloc(0))).toBe('invalid_argument')
    expect(await end(Buffer.from([0, 0, 0]))).toBe('invalid_argument')
    expect(await end(Buffer.from([0, 0, 0, 0, 9, 1]))).toBe('invalid_argument')
    expect(await end(Buffer.from([0, 0xff, 0xff, 0xff, 0xff]))).toBe('resource_exhausted')
  })
})

describe('a command line that the kernel does not take', () => {
  const start = (process: object, pty = {}) => collect(harness.client(Process, 'json').start({ process, ...pty }))
  const large = (count: number, size: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`LARGE_${index}`, 'x'.repeat(size)]))

  it.each([{ pty: undefined }, { pty: { size: { cols: 80, rows: 24 } } }])(
    'is refused by what is too long in it, %j',
    async (pty) => {
      const refused = (process: object, what: RegExp) =>
        expect(start(process, pty)).rejects.toMatchObject({ code: 8, rawMessage: expect.stringMatching(what) })
      await refused(
        { cmd: 'true', envs: large(1, 3_000_000) },
        /environment variable LARGE_0 has 3000008 bytes .* 131071/,
      )
      await refused({ cmd: 'true', envs: large(30, 100_000) }, /environment has 30\d{5} bytes, .* at most 2097152/)
      await refused({ cmd: 'true', args: ['x'.repeat(200_000)] }, /argument 1 has 200000 bytes/)
      await refused(
        { cmd: 'true', args: Array.from({ length: 40 }, () => 'x'.repeat(100_000)) },
        /cmd and args have 40\d{5}/,
      )
    },
  )

  it('leaves no terminal open', async () => {
    const terminals = () =>
      readdirSync('/proc/self/fd').filter((fd) => {
        const path = `/proc/self/fd/${fd}`
        return existsSync(path) && /ptmx$/.test(readlinkSync(path))
      })
    const before = terminals()
    const pty = { pty: { size: { cols: 80, rows: 24 } } }
    for (let run = 0; run < 3; run++) {
      await expect(start({ cmd: 'true', envs: large(1, 200_000) }, pty)).rejects.toMatchObject({ code: 8 })
    }
    expect(terminals()).toEqual(before)
  })

  it('tells 126 for a path that is too long, and refuses names that no environment can hold', async () => {
    const long = await start({ cmd: `/${'x/'.repeat(4_000)}` })
    expect([long.end?.exitCode, long.stderr.toString()]).toEqual([126, expect.stringContaining('ENAMETOOLONG')])
    for (const name of ['A=B', '', 'A\0']) {
      await expect(start({ cmd: 'true', envs: { [name]: 'x' } })).rejects.toMatchObject({ code: 3 })
    }
    expect((await start({ cmd: 'env', envs: { 'dotted.name-x': '1' } })).stdout.toString()).toContain(
      'dotted.name-x=1\n',
    )
  })
})

describe('the language of a process', () => {
  const charmap = async (envs: Readonly<Record<string, string>>, pty = {}) => {
    const process = { ...shell('locale charmap'), envs }
    const { stdout, pty: shown } = await collect(harness.client(Process).start({ process, stdin: false, ...pty }))
    return `${stdout}${shown}`.trim()
  }

  it('is UTF-8 unless it is told another, in a terminal and without one', async () => {
    const pty = { pty: { size: { cols: 80, rows: 24 } } }
    for (const form of [{}, pty]) {
      expect(await charmap({}, form)).toBe('UTF-8')
      expect(await charmap({ LANG: 'C' }, form)).toBe('ANSI_X3.4-1968')
      expect(await charmap({ LC_ALL: 'POSIX' }, form)).toBe('ANSI_X3.4-1968')
    }
  })

  it('is that of the capsule where it has one', async () => {
    await using own = await AgentHarness.start()
    await own.init({ envs: { LANG: 'C' } })
    const { stdout } = await collect(own.client(Process).start({ process: shell('locale charmap'), stdin: false }))
    expect(stdout.toString()).toBe('ANSI_X3.4-1968\n')
  })
})

describe('an agent that starts again', () => {
  it('is claimed as before, forgets the old logs and can write its own', async () => {
    const stateDir = mkdtempSync(join(tmpdir(), 'guest-agent-again-'))
    const runDir = join(stateDir, 'run')
    const logLimits = { memoryBytes: 400_000, diskBytes: 1e9 }
    mkdirSync(join(stateDir, 'output/0'), { recursive: true })
    writeFileSync(join(stateDir, 'output/0/0.log'), 'of a killed agent')
    const many = shell('head -c 5000000 /dev/zero')
    {
      await using first = await AgentHarness.start({ stateDir, runDir, logLimits })
      await first.init({ envs: { KEPT: 'yes' }, defaultUser: TESTER.name })
      expect((await collect(first.client(Process).start({ process: many, stdin: false }))).stdout.length).toBe(
        5_000_000,
      )
    }
    expect(statSync(runDir).mode & 0o777).toBe(0o700)
    mkdirSync(join(stateDir, 'output/0'), { recursive: true })
    writeFileSync(join(stateDir, 'output/0/0.log'), 'of a killed agent')
    {
      await using second = await AgentHarness.start({ stateDir, runDir, logLimits, claimed: false })
      const { stdout } = await collect(
        second.client(Process).start({ process: shell('id -un; echo $KEPT'), stdin: false }),
      )
      expect(stdout.toString()).toContain('yes\n')
      const anew = await second.init({ secret: 'stolen-secret-0123456789' }, { 'x-wrenn-secret': '' })
      expect(anew.status).toBe(401)
      expect((await collect(second.client(Process).start({ process: many, stdin: false }))).stdout.length).toBe(
        5_000_000,
      )
    }
    rmSync(stateDir, { recursive: true })
  })
})

describe('a disk without a single inode or block left', () => {
  it('keeps no command from running, also one whose output should go there', async () => {
    const mount = mkdtempSync(join(tmpdir(), 'guest-agent-inodes-'))
    const runDir = mkdtempSync(join(tmpdir(), 'guest-agent-run-'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k,nr_inodes=6', 'wrenn-test-inodes', mount])
    try {
      execFileSync('sh', ['-c', 'i=0; while touch $i 2>/dev/null; do i=$((i+1)); done'], { cwd: mount })
      const logLimits = { memoryBytes: 400_000, diskBytes: 1e9 }
      await using full = await AgentHarness.start({ stateDir: join(mount, 'state'), runDir, logLimits })
      const client = full.client(Process)
      for (let run = 0; run < 150; run++) {
        const { stdout } = await collect(client.start({ process: { cmd: 'echo', args: [`${run}`] } }))
        expect(stdout.toString()).toBe(`${run}\n`)
      }
      const many = { process: shell('head -c 5000000 /dev/zero'), stdin: false, tag: 'many' }
      const { stdout, end } = await collect(client.start(many))
      expect([stdout.length, end?.exitCode]).toEqual([5_000_000, 0])
      const again = await collect(client.connect({ process: byTag('many'), fromOffset: 0n }))
      expect(again.lost.length).toBeGreaterThan(0)
      expect(again.end?.exitCode).toBe(0)
    } finally {
      execFileSync('umount', [mount])
      rmdirSync(mount)
      rmSync(runDir, { recursive: true })
    }
  }, 60_000)
})

describe('a directory for pipes that something else is mounted over', () => {
  it('serves as before', async () => {
    const runDir = mkdtempSync(join(tmpdir(), 'guest-agent-over-'))
    await using over = await AgentHarness.start({ runDir })
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'ro', 'wrenn-test-over', runDir])
    try {
      for (let run = 0; run < 100; run++) {
        const { end } = await collect(over.client(Process).start({ process: { cmd: 'true' } }))
        expect(end?.exitCode).toBe(0)
      }
    } finally {
      execFileSync('umount', [runDir])
    }
  }, 60_000)
})

describe('a full disk under the output logs', () => {
  it('costs the logs of ended processes first, then old output, and every reader is told', async () => {
    const mount = mkdtempSync(join(tmpdir(), 'guest-agent-full-'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'wrenn-test-log', mount])
    try {
      const limits = { memoryBytes: 1024 * 1024, diskBytes: 1e9 }
      await using full = await AgentHarness.start({ stateDir: join(mount, 'state'), logLimits: limits })
      const client = full.client(Process)
      const first = await collect(
        client.start({ process: shell('head -c 6000000 /dev/zero'), stdin: false, tag: 'first' }),
      )
      expect(first.stdout.length).toBe(6_000_000)
      const live = await collect(
        client.start({ process: shell('head -c 6000000 /dev/zero'), stdin: false, tag: 'second' }),
      )
      expect([live.stdout.length, live.lost]).toEqual([6_000_000, []])
      const second = await collect(client.connect({ process: byTag('second'), fromOffset: 0n }))
      expect([second.stdout.length, second.lost]).toEqual([6_000_000, []])
      const dropped = await collect(client.connect({ process: byTag('first'), fromOffset: 0n }))
      expect(dropped.lost[0]?.[0]).toBe(0)
      expect(dropped.stdout.length + (dropped.lost[0]?.[1] ?? 0)).toBe(6_000_000)
      expect(dropped.end?.exitCode).toBe(0)
      const huge = await collect(
        client.start({ process: shell('head -c 60000000 /dev/zero'), stdin: false, tag: 'huge' }),
      )
      expect([huge.stdout.length, huge.lost, huge.end?.exitCode]).toEqual([60_000_000, [], 0])
      const replayed = await collect(client.connect({ process: byTag('huge'), fromOffset: 0n }))
      const lost = replayed.lost.reduce((sum, [from, to]) => sum + to - from, 0)
      expect(lost).toBeGreaterThan(0)
      expect(replayed.stdout.length + lost).toBe(60_000_000)
    } finally {
      execFileSync('umount', [mount])
      rmdirSync(mount)
    }
  })
})

// Printed by name when the machine has no cgroup2 at all.
describe.skipIf(UNIFIED === undefined)('with cgroups', () => {
  const dir = join(UNIFIED ?? '', `wrenn-agent-test-${process.pid}`)
  let own: AgentHarness
  beforeAll(async () => {
    mkdirSync(dir)
    own = await AgentHarness.start({ cgroupDir: dir })
  })
  afterAll(async () => {
    await own[Symbol.asyncDispose]()
    writeFileSync(join(UNIFIED ?? '', 'cgroup.procs'), String(process.pid))
    await eventually('the groups to be empty', () => removeGroups(dir))
  })

  const groups = () =>
    readdirSync(join(dir, 'wrenn-processes'), { withFileTypes: true }).filter((each) => each.isDirectory())

  /** A group still in use when its process ends goes when the next process starts. */
  const groupsGone = async () => {
    await collect(own.client(Process).start({ process: { cmd: 'true' }, stdin: false }))
    return groups().length === 0
  }

  it('puts each process into its own group before it runs, with a raised out-of-memory score', async () => {
    const script = 'cat /proc/self/cgroup | grep ^0::; cat /proc/self/oom_score_adj'
    const { stdout } = await collect(own.client(Process).start({ process: shell(script), stdin: false }))
    expect(stdout.toString()).toMatch(/wrenn-processes\/p\S+\n300\n$/)
    expect(readFileSync('/proc/self/cgroup', 'utf8')).toMatch(/^0::.*wrenn-agent$/m)
    await eventually('its group to go', groupsGone)
  })

  it('kills what has left the session and the process group, also a fork bomb', async () => {
    const pidFile = join(own.dir, 'escaped')
    const script = `setsid sh -c 'echo $$ >${pidFile}; while :; do sleep 100 & sleep 0.01; done' & sleep 100`
    const result = collect(own.client(Process).start({ process: shell(script), stdin: false, timeoutMs: 1_500 }))
    expect((await result).end).toMatchObject({ timedOut: true, signal: 9 })
    const pid = readFileSync(pidFile, 'utf8').trim()
    await eventually(
      'the escaped to die',
      () => !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')),
    )
    await eventually('its group to go', groupsGone)
  })

  it('signals every member, and keeps the group until a background child has ended', async () => {
    const client = own.client(Process)
    const gate = join(own.dir, 'background-gate')
    const script = `setsid sh -c 'while [ ! -e ${gate} ]; do sleep 0.05; done' >/dev/null 2>&1 &`
    await collect(client.start({ process: shell(script), stdin: false }))
    expect(groups().length).toBe(1)
    writeFileSync(gate, '')
    await eventually('the group to go', async () => {
      await collect(client.start({ process: { cmd: 'true' }, stdin: false }))
      return groups().length === 0
    })
    const trapping = `trap 'wait; echo got; exit 0' TERM; sh -c 'trap "echo child; exit" TERM; echo ready; while :; do sleep 0.05; done' & echo ready; wait; wait`
    const events = collect(client.start({ process: shell(trapping), stdin: false, tag: 'trapping' }))
    await eventually('both to be up', async () =>
      (await client.list({})).processes.some((each) => each.tag === 'trapping' && each.outputOffset >= 12n),
    )
    await client.sendSignal({ process: byTag('trapping'), signal: Signal.SIGTERM })
    expect((await events).stdout.toString()).toMatch(/child\n(.*\n)*got\n$/)
  })

  it('finds processes of an agent that was killed, says so, and can still end them', async () => {
    const orphanage = join(dir, 'wrenn-processes/p1-old-0')
    mkdirSync(orphanage)
    const { spawn } = await import('node:child_process')
    const orphan = spawn('sleep', ['100'], { stdio: 'ignore' })
    const pid = orphan.pid ?? 0
    writeFileSync(join(orphanage, 'cgroup.procs'), String(pid))
    {
      await using heir = await AgentHarness.start({ cgroupDir: dir })
      const client = heir.client(Process)
      await expect(collect(client.connect({ process: byPid(pid) }))).rejects.toMatchObject({
        code: 5,
        rawMessage: expect.stringContaining('its output is lost'),
      })
      const ended = new Promise((resolve) => orphan.once('exit', (_code, signal) => resolve(signal)))
      await client.sendSignal({ process: byPid(pid), signal: Signal.SIGKILL })
      expect(await ended).toBe('SIGKILL')
      await expect(client.sendSignal({ process: byPid(pid), signal: Signal.SIGKILL })).rejects.toMatchObject({
        code: 5,
        rawMessage: `process with pid ${pid} not found`,
      })
    }
    await eventually('the group to go', () => removeGroups(orphanage))
  })
})

/** True when the group and those below are gone. */
function removeGroups(dir: string): boolean {
  try {
    for (const each of readdirSync(dir, { withFileTypes: true }))
      if (each.isDirectory()) removeGroups(join(dir, each.name))
    rmdirSync(dir)
  } catch {
    // In use for a moment longer, or gone already: looked at again.
  }
  return !existsSync(dir)
}
