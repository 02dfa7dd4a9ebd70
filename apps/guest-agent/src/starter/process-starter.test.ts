import { chmodSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Logger, processStarter, silentLogger } from '@wrenn/base'
import { Process } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { birthmarkOf } from '../process/birthmark.js'
import { NativePty } from '../process/native-pty.js'
import { PipePool } from '../process/pipes.js'
import { Tools } from '../system/tools.js'
import { AgentHarness, asUserHeader, TESTER } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'
import { ProcessStarter } from './process-starter.js'

const UNIFIED = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((dir) => existsSync(join(dir, 'cgroup.procs')))
const GROUPS = join(UNIFIED ?? '', `wrenn-starter-test-${process.pid}`)
const TERMINAL = { size: { cols: 91, rows: 17 } }
const shell = (script: string) => ({ cmd: '/bin/sh', args: ['-c', script] })
// Printed by name on another architecture than x86-64.
const describeHere = describe.skipIf(processStarter() === undefined)

/** What `/proc` says of a program that the start decides. */
const STATUS = '^(Uid|Gid|Groups|Umask|Sig(Pnd|Blk|Ign|Cgt)|ShdPnd|Cap...|NoNewPrivs|Seccomp|Cpus_allowed):'
const observations: Readonly<Record<string, object>> = {
  'its rights, signals and umask': { cmd: 'grep', args: ['-E', STATUS, '/proc/self/status'] },
  'its personality': { cmd: 'cat', args: ['/proc/self/personality'] },
  'its limits': { cmd: 'cat', args: ['/proc/self/limits'] },
  'its session, of which it is the leader': shell(
    'set -- $(cut -d" " -f5,6 /proc/$$/stat); [ $1$2 = $$$$ ] && echo leads',
  ),
  'its terminal': shell('stty -a <&1 2>&1; tty; (: </dev/tty) 2>&1 | tail -c 30'),
  'its streams': shell(
    'cd /proc/$$; for fd in 0 1 2; do readlink fd/$fd | cut -d"(" -f1 | tr -d "0-9 "; grep flags fdinfo/$fd; done',
  ),
  'its streams, opened anew': shell(
    'echo out >/dev/stdout; echo err >/dev/stderr; stat -L -c "%u %g %F" /proc/$$/fd/1',
  ),
  'its directory and environment': shell('pwd; env | sort'),
  'its score and group': shell('cat /proc/$$/oom_score_adj; grep ^0:: /proc/$$/cgroup | tr -d 0-9a-z'),
}
const commands: Readonly<Record<string, object>> = {
  'a code': shell('exit 41'),
  'a signal': shell('kill -TERM $$'),
  'a program that is not there': { cmd: 'no-such-program' },
  'a path that is not there': { cmd: './none/such' },
  'a file that is no program': { cmd: '/etc/passwd' },
  'a directory': { cmd: '/tmp' },
  'a name that no file can have': { cmd: 'x'.repeat(300) },
  'a PATH that leads nowhere': { cmd: 'true', envs: { PATH: '/none:/etc/passwd' } },
  'a PATH with nothing in it': { cmd: 'true', envs: { PATH: '' } },
  'too many arguments': { cmd: 'true', args: Array.from({ length: 40 }, () => 'x'.repeat(100_000)) },
}

describeHere.each([{ cgroupDir: undefined }, ...(UNIFIED === undefined ? [] : [{ cgroupDir: GROUPS }])])(
  'a process that the resident starter made, with $cgroupDir for a cgroup, is as one that Node.js made',
  ({ cgroupDir }) => {
    let harnesses: readonly [AgentHarness, AgentHarness]
    beforeAll(async () => {
      const groups = (name: string) => (cgroupDir === undefined ? {} : { cgroupDir: join(cgroupDir, name) })
      if (cgroupDir !== undefined) for (const name of ['', 'starter', 'node']) mkdirSync(join(cgroupDir, name))
      harnesses = [
        await AgentHarness.start({ ...groups('starter') }),
        await AgentHarness.start({ ...groups('node'), starter: false }),
      ]
    })
    afterAll(async () => {
      for (const each of harnesses) await each[Symbol.asyncDispose]()
      if (cgroupDir === undefined) return
      writeFileSync(join(UNIFIED ?? '', 'cgroup.procs'), String(process.pid))
      for (const name of [
        'starter/wrenn-agent',
        'starter/wrenn-processes',
        'starter',
        'node/wrenn-agent',
        'node/wrenn-processes',
        'node',
        '',
      ])
        await eventually(`the group ${name} to go`, () => removed(join(cgroupDir, name)))
    })

    /** Output and end by both ways, less what names the harness. */
    async function both(user: string, start: object) {
      const [byStarter, byNode] = harnesses.map(async (harness) => {
        const { stdout, stderr, pty, end } = await collect(
          harness.client(Process, 'binary', asUserHeader(user)).start({ stdin: false, ...start }),
        ).catch((error: unknown) => ({ stdout: '', stderr: String(error), pty: '', end: undefined }))
        const text = `${stdout}${pty}---\n${stderr}`.replaceAll(
          /guest-agent-test-\w+|pts\/\d+|\/(starter|node)\//g,
          '…',
        )
        return { text, exitCode: end?.exitCode, signal: end?.signal, status: end?.status }
      })
      return { byStarter: await byStarter, byNode: await byNode }
    }

    for (const user of ['root', 'nobody', TESTER.name])
      for (const pty of [undefined, TERMINAL])
        it.each(Object.entries(observations))(`for ${user}${pty ? ' in a terminal' : ''}: %s`, async (_, process) => {
          const { byStarter, byNode } = await both(user, { process, ...(pty && { pty }) })
          expect(byStarter).toEqual(byNode)
          expect(byStarter?.text).not.toBe('---\n')
        })

    it.each(Object.entries(commands))('in how it ends or fails: %s', async (_, command) => {
      const { byStarter, byNode } = await both('root', { process: command })
      expect(byStarter).toEqual(byNode)
    })

    it('in what it reads', async () => {
      const [starter, node] = harnesses.map(async (harness) => {
        const client = harness.client(Process)
        const process = { selector: { case: 'tag', value: 'reads' } } as const
        const ended = collect(client.start({ process: { cmd: 'cat' }, tag: 'reads' }))
        await eventually('it to run', async () => (await client.list({})).processes.some(({ tag }) => tag === 'reads'))
        await client.sendInput({ process, input: { input: { case: 'stdin', value: Buffer.from('read me') } } })
        await client.closeStdin({ process })
        return (await ended).stdout.toString()
      })
      expect([await starter, await node]).toEqual(['read me', 'read me'])
    })

    it('in where it finds its program', async () => {
      for (const { dir } of harnesses) {
        for (const name of ['forbidden', 'scripts', 'relative']) mkdirSync(join(dir, name))
        writeFileSync(join(dir, 'forbidden/found'), '#!/bin/sh\necho wrong\n', { mode: 0o644 })
        writeFileSync(join(dir, 'scripts/found'), 'echo "$0 $1" | sed s,.*/files/,,\n', { mode: 0o755 })
        writeFileSync(join(dir, 'scripts/broken'), 'not run', { mode: 0o644 })
        chmodSync(join(dir, 'scripts/found'), 0o755)
      }
      const [starter, node] = harnesses.map(async (harness) => {
        const run = async (cmd: string, path: string, cwd = harness.dir) => {
          const envs = { PATH: path.replaceAll('$DIR', harness.dir) }
          const start = { process: { cmd, args: ['given'], cwd, envs }, stdin: false }
          const { stdout, stderr, end } = await collect(harness.client(Process).start(start))
          return [stdout.toString(), stderr.toString().replaceAll(harness.dir, ''), end?.exitCode]
        }
        return [
          await run('found', '/none:$DIR/forbidden:$DIR/scripts:/bin:/usr/bin'),
          await run('found', '$DIR/forbidden:/none:/bin'),
          await run('found', ':/none:/usr/bin:/bin', join(harness.dir, 'scripts')),
          await run('./found', '/usr/bin:/bin', join(harness.dir, 'scripts')),
          await run('broken', '$DIR/scripts:/bin'),
        ]
      })
      expect(await starter).toEqual(await node)
      expect((await starter)?.map((result) => result[2])).toEqual([0, 126, 0, 0, 126])
    })
  },
)

describeHere('the resident starter', () => {
  let harness: AgentHarness
  beforeAll(async () => {
    harness = await AgentHarness.start()
  })
  afterAll(() => harness[Symbol.asyncDispose]())

  const run = async (script: string, more: object = {}) =>
    await collect(harness.client(Process).start({ process: { ...shell(script), ...more }, stdin: false }))
  /** Whose child a process is, and what that one is called. */
  const parent = async () => {
    const [pid = '', name = ''] = (await run('echo $PPID; cat /proc/$PPID/comm')).stdout.toString().split('\n')
    return { pid: Number(pid), name }
  }

  it('tells a signal that has no name', async () => {
    expect((await run('kill -34 $$')).end).toMatchObject({
      exited: false,
      exitCode: -1,
      signal: 34,
      status: 'signal: signal 34',
    })
  })

  it('passes what the kernel takes at most, and keeps none of it', async () => {
    const envs = Object.fromEntries(Array.from({ length: 15 }, (_, index) => [`LARGE_${index}`, 'x'.repeat(100_000)]))
    expect((await run('env | wc -c', { envs })).stdout.toString()).toMatch(/^150\d{4}\n$/)
    const { pid, name } = await parent()
    expect(name).toBe('process-starter')
    expect(Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])).toBeLessThan(512)
  })

  it('gives nothing else that is open, and a mark that children inherit', async () => {
    const fds = await run('exec ls -l /proc/self/fd')
    expect([...fds.stdout.toString().matchAll(/ (\d+) ->/g)].map(([, fd]) => fd)).toEqual(['0', '1', '2', '3'])
    const { stdout } = await run('exec sh -c "sh -c \'sleep 0; cat /proc/$$/timerslack_ns /proc/self/timerslack_ns\'"')
    const marks = stdout.toString().trim().split('\n').map(Number)
    expect(marks.every((mark) => mark > 20_000 && mark < 50_000 && mark === marks[0])).toBe(true)
    expect(birthmarkOf((await parent()).pid)).toBeUndefined()
  })

  it('leaves no process behind that could not run its program', async () => {
    const { pid } = await parent()
    expect(
      (await collect(harness.client(Process).start({ process: { cmd: '/none' }, stdin: false }))).end?.exitCode,
    ).toBe(127)
    await eventually('its children to go', () => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8') === '')
  })

  it('serves many at once', async () => {
    const codes = Array.from({ length: 60 }, (_, index) => index)
    const ends = await Promise.all(codes.map((code) => run(`sleep 0.0$((${code} % 10)); exit ${code}`)))
    expect(ends.map(({ end }) => end?.exitCode)).toEqual(codes)
  })

  it('may be killed: its processes run on, their ends are seen, and another one takes its place', async () => {
    const { pid } = await parent()
    const gate = join(harness.dir, 'gate')
    const survivor = run(`until [ -e ${gate} ]; do sleep 0.05; done; echo over; exit 7`)
    await eventually('it to run', async () => (await harness.client(Process).list({})).processes.length > 0)
    process.kill(pid, 'SIGKILL')
    expect((await run('exit 3')).end?.exitCode).toBe(3)
    writeFileSync(gate, '')
    const { stdout, end } = await survivor
    expect(stdout.toString()).toBe('over\n')
    expect(end).toMatchObject({ exited: false, exitCode: -1, status: expect.stringContaining('nobody saw how') })
    await eventually('the next starter', async () => {
      const { pid: next, name } = await parent()
      return name === 'process-starter' && next !== pid
    })
  })

  it('ends with its agent', async () => {
    const own = await AgentHarness.start()
    const { stdout } = await collect(own.client(Process).start({ process: shell('echo $PPID'), stdin: false }))
    await own[Symbol.asyncDispose]()
    await eventually('it to end', () => !existsSync(`/proc/${stdout.toString().trim()}`))
  })

  it('that cannot run is told of once, and makes nothing', async () => {
    const told: unknown[] = []
    const log: Logger = { ...silentLogger, warn: (fields, event) => told.push([event, fields]) }
    const pipes = new PipePool(`${harness.stateDir}-own`, new Tools(undefined))
    await pipes.prepare()
    for (const program of ['/none/such', '/bin/true']) {
      const starter = new ProcessStarter({ program, pipes, pty: new NativePty(''), log })
      await starter.prepare()
      await starter.prepare()
      expect([starter.state, starter.makePipes(['x'])]).toEqual([undefined, false])
      starter.close()
    }
    pipes.close()
    expect(told).toEqual(Array.from({ length: 2 }, () => ['starter.unusable', { reason: expect.any(String) }]))
  })
})

function removed(path: string): boolean {
  try {
    if (existsSync(path)) rmdirSync(path)
  } catch {
    // In use for a moment longer: looked at again.
  }
  return !existsSync(path)
}
