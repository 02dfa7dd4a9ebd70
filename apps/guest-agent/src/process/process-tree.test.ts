import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Process, Signal } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'

const UNIFIED = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((dir) => existsSync(join(dir, 'cgroup.procs')))
const shell = (script: string) => ({ cmd: '/bin/sh', args: ['-c', script] })

/** Scripts that start `$RUN`, which writes its pid, somewhere else than in the tree of the shell that runs them. */
const waysOut: Readonly<Record<string, string>> = {
  'a session of its own': 'setsid sh -c "$RUN" & sleep 1000',
  'no parent': '(setsid sh -c "$RUN" &); sleep 1000',
  'nohup and no parent': '(nohup sh -c "$RUN" >/dev/null 2>&1 &); sleep 1000',
  'an empty environment': `run="$RUN"; (env -i /usr/bin/setsid /bin/sh -c "$run" &); sleep 1000`,
  'namespaces of its own': '(setsid unshare --fork --pid --mount --ipc --uts sh -c "$RUN" &); sleep 1000',
  'a user namespace': '(setsid unshare --user --map-root-user --fork --pid sh -c "$RUN" &); sleep 1000',
  'closed pipes and no parent': '(setsid sh -c "$RUN" <&- >&- 2>&- &); sleep 1000',
  'another user': '(setsid setpriv --reuid 54321 --clear-groups sh -c "$RUN" &); sleep 1000',
  'a daemon': `setsid python3 -c 'import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.chdir("/"); os.closerange(0, 100)
os.execlp("sh", "sh", "-c", os.environ["RUN"])'; sleep 1000`,
}

function isAlive(pid: string): boolean {
  if (!existsSync(`/proc/${pid}`)) return false
  return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
}

/** What each run writes: the pid of the shell that got out, as the machine counts. */
function witness(dir: string, name: string) {
  const file = join(dir, `${name.replaceAll(' ', '-')}.pid`)
  // The number in /proc/self/stat is that of the namespace /proc was mounted in: ours.
  const run = `read -r pid rest </proc/self/stat; echo $pid >${file}.new; mv ${file}.new ${file}; while :; do sleep 1; done`
  return { run, file, pid: () => readFileSync(file, 'utf8').trim() }
}

const grounds = [
  { by: 'without cgroups', cgroupDir: undefined },
  // The name of the run tells when the machine has no cgroup2 at all.
  ...(UNIFIED === undefined
    ? []
    : [{ by: 'with cgroups', cgroupDir: join(UNIFIED, `wrenn-tree-test-${process.pid}`) }]),
]
describe.each(grounds)('a tree that is killed, $by', ({ cgroupDir }) => {
  let harness: AgentHarness
  beforeAll(async () => {
    if (cgroupDir !== undefined) mkdirSync(cgroupDir)
    harness = await AgentHarness.start(cgroupDir === undefined ? {} : { cgroupDir })
  })
  afterAll(async () => {
    await harness[Symbol.asyncDispose]()
    if (cgroupDir === undefined) return
    writeFileSync(join(UNIFIED ?? '', 'cgroup.procs'), String(process.pid))
    for (const name of ['wrenn-agent', 'wrenn-processes', '.']) {
      await eventually(`the group ${name} to go`, () => removeGroup(join(cgroupDir, name)))
    }
  })

  /** Starts `script`, waits until what got out of it runs, and kills by `end`. */
  async function killed(name: string, script: string, options: { timeoutMs?: number } = {}): Promise<string> {
    const { run, file, pid } = witness(harness.dir, name)
    const client = harness.client(Process)
    const start = { process: { ...shell(script), envs: { RUN: run } }, stdin: false, tag: name.replaceAll(' ', '-') }
    const ended = collect(client.start({ ...start, ...options }))
    await eventually(`${name} to run`, () => existsSync(file))
    if (options.timeoutMs === undefined) {
      const process = { selector: { case: 'tag', value: start.tag } } as const
      await client.sendSignal({ process, signal: Signal.SIGKILL })
    }
    expect((await ended).end).toMatchObject({ signal: 9, timedOut: options.timeoutMs !== undefined })
    return pid()
  }

  it.each(Object.entries(waysOut))('leaves nothing that went into %s', async (name, script) => {
    expect(isAlive(await killed(name, script))).toBe(false)
  })

  it('has ended with everything when a deadline killed it', async () => {
    const pid = await killed('deadline', '(setsid sh -c "$RUN" &); sleep 1000', { timeoutMs: 1_500 })
    expect(isAlive(pid)).toBe(false)
  })

  it('spares what a command that ended by itself has left behind', async () => {
    const { run, file, pid } = witness(harness.dir, 'left')
    const start = { process: { ...shell('(setsid sh -c "$RUN" >/dev/null 2>&1 &)'), envs: { RUN: run } }, stdin: false }
    expect((await collect(harness.client(Process).start(start))).end?.exitCode).toBe(0)
    await eventually('it to run', () => existsSync(file))
    await killed('another', '(setsid sh -c "$RUN" &); sleep 1000')
    kill(pid())
  })

  if (cgroupDir === undefined) return

  it.each([
    ['a cgroup of its own', join(UNIFIED ?? '', `wrenn-tree-test-out-${process.pid}`)],
    ['the root cgroup', UNIFIED ?? ''],
    ['the cgroup of the agent', join(cgroupDir, 'wrenn-agent')],
  ])('leaves nothing when the shell itself went into %s and lost its parent', async (name, group) => {
    const script = `mkdir -p ${group}; echo $$ >${group}/cgroup.procs; (env -i RUN="$RUN" setsid sh -c "$RUN" &); sleep 1000`
    expect(isAlive(await killed(name, script))).toBe(false)
    if (group.includes('-out-')) await eventually('the group to go', () => removeGroup(group))
  })

  it('leaves nothing of one that multiplies in a cgroup of its own', async () => {
    const group = join(UNIFIED ?? '', `wrenn-tree-test-bomb-${process.pid}`)
    const bomb = 'sh -c "while :; do setsid sleep 1000 & sleep 0.01; done"'
    const script = `mkdir ${group}; echo $$ >${group}/cgroup.procs; (setsid ${bomb} &); (setsid ${bomb} &); (setsid sh -c "$RUN" &); sleep 1000`
    expect(isAlive(await killed('bomb', script, { timeoutMs: 2_000 }))).toBe(false)
    expect(readFileSync(join(group, 'cgroup.procs'), 'utf8')).toBe('')
    await eventually('the group to go', () => removeGroup(group))
  })
})

describe('a command that ends while another process floods its pipe', () => {
  it('ends all the same', async () => {
    await using harness = await AgentHarness.start()
    const file = join(harness.dir, 'flooder')
    const flooder = `echo $$ >${file}; exec yes`
    const process = shell(`(setsid sh -c '${flooder}' &); until [ -s ${file} ]; do :; done; exit 3`)
    const { end } = await collect(harness.client(Process).start({ process, stdin: false }))
    expect(end).toMatchObject({ exitCode: 3, timedOut: false })
    kill(readFileSync(file, 'utf8').trim())
  })
})

function kill(pid: string): void {
  expect(isAlive(pid)).toBe(true)
  process.kill(Number(pid), 'SIGKILL')
}

function removeGroup(path: string): boolean {
  try {
    if (existsSync(path)) rmdirSync(path)
  } catch {
    // In use for a moment longer: looked at again.
  }
  return !existsSync(path)
}
