import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Code } from '@connectrpc/connect'
import { Process, Signal } from '@wrenn/protocol/guest'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentHarness, asUserHeader } from '../testing/agent-harness.js'
import { collect } from '../testing/collect.js'
import { eventually } from '../testing/eventually.js'

let harness: AgentHarness
beforeAll(async () => {
  harness = await AgentHarness.start()
})
afterAll(() => harness[Symbol.asyncDispose]())

const shell = (script: string) => ({ cmd: '/bin/sh', args: ['-c', script] })

describe.each(['json', 'binary'] as const)('process.Process over %s', (codec) => {
  const client = () => harness.client(Process, codec)

  it('delivers both streams, the exit code and its text', async () => {
    const result = await collect(
      client().start({ process: shell('echo out; echo err >/dev/stderr; exit 3'), stdin: false }),
    )
    expect(result.stdout.toString()).toBe('out\n')
    expect(result.stderr.toString()).toBe('err\n')
    expect(result.end).toMatchObject({ exitCode: 3, exited: true, status: 'exit status 3', error: 'exit status 3' })
  })

  it('keeps bytes that are not UTF-8', async () => {
    const result = await collect(client().start({ process: shell("printf '\\377\\000\\200'"), stdin: false }))
    expect([...result.stdout]).toEqual([0xff, 0, 0x80])
  })

  it('reports a death by signal as -1 with the signal', async () => {
    const result = await collect(client().start({ process: shell('kill -9 $$'), stdin: false }))
    expect(result.end).toMatchObject({ exitCode: -1, exited: false, status: 'signal: killed', signal: 9 })
  })

  it('shows an unknown program as exit 127 and one that cannot run as 126', async () => {
    const unknown = await collect(client().start({ process: { cmd: 'no-such-program' }, stdin: false }))
    expect(unknown.end?.exitCode).toBe(127)
    expect(unknown.stderr.toString()).toBe('no-such-program: command not found\n')
    const forbidden = await collect(client().start({ process: { cmd: '/etc/passwd' }, stdin: false }))
    expect(forbidden.end?.exitCode).toBe(126)
    const endless = await collect(client().start({ process: { cmd: 'x'.repeat(200_000) }, stdin: false }))
    expect(endless.end?.exitCode).toBe(126)
  })

  it('refuses a missing directory and an unknown user with the documented codes', async () => {
    await expect(collect(client().start({ process: { cmd: 'pwd', cwd: '/no/such' } }))).rejects.toMatchObject({
      code: 3,
      rawMessage: "cwd '/no/such' does not exist",
    })
    const stranger = harness.client(Process, codec, asUserHeader('zork'))
    await expect(collect(stranger.start({ process: { cmd: 'true' } }))).rejects.toMatchObject({
      code: 16,
      rawMessage: "invalid username: 'zork'",
    })
  })

  it('feeds standard input until it is closed', async () => {
    const events = client().start({ process: { cmd: 'cat' }, tag: `cat-${codec}` })
    const result = collect(events)
    const selector = { selector: { case: 'tag', value: `cat-${codec}` } } as const
    await eventually('the process to get there', async () =>
      (await client().list({})).processes.some((each) => each.tag === `cat-${codec}`),
    )
    const big = Buffer.alloc(300_000, 'x')
    await client().sendInput({ process: selector, input: { input: { case: 'stdin', value: big } } })
    await client().closeStdin({ process: selector })
    const { stdout, end } = await result
    expect(end?.exitCode).toBe(0)
    expect(stdout.equals(big)).toBe(true)
  })

  it('resumes from an offset without gap or duplicate, also after the end', async () => {
    const script = 'for i in 1 2 3 4 5 6 7 8 9; do echo out$i; echo err$i >&2; done'
    const whole = await collect(client().start({ process: shell(script), stdin: false, withOffsets: true }))
    const total = Number(whole.end?.offset)
    expect(total).toBe(whole.stdout.length + whole.stderr.length)
    const selector = { selector: { case: 'pid', value: whole.pid } } as const
    const again = await collect(client().connect({ process: selector, fromOffset: 7n }))
    expect(again.offsets[0]).toBe(7)
    expect(again.stdout.length + again.stderr.length).toBe(total - 7)
    const late = await collect(client().connect({ process: selector }))
    expect(late.stdout.length).toBe(0)
    expect(late.end?.exitCode).toBe(0)
  })

  it('tells who follows from now on where that is, when asked for offsets', async () => {
    const fifo = join(harness.dir, `now-${codec}`)
    const script = `mkfifo ${fifo}; echo past; read -r _ <${fifo}; echo now`
    const tag = `now-${codec}`
    const process = { selector: { case: 'tag', value: tag } } as const
    const whole = collect(client().start({ process: shell(script), tag, stdin: false }))
    await eventually('the past', async () =>
      (await client().list({})).processes.some((each) => each.tag === tag && each.outputOffset === 5n),
    )
    const iterator = client().connect({ process, withOffsets: true })[Symbol.asyncIterator]()
    expect((await iterator.next()).value?.event?.event.value).toMatchObject({ offset: 5n })
    await collect(client().start({ process: shell(`echo >${fifo}`), stdin: false }))
    const rest = await collect({ [Symbol.asyncIterator]: () => iterator })
    expect([rest.offsets, rest.stdout.toString()]).toEqual([[5], 'now\n'])
    expect((await whole).offsets).toEqual([])
  })

  it('makes who asks for an offset that is not there yet wait for it', async () => {
    const fifo = join(harness.dir, `gate-${codec}`)
    const script = `mkfifo ${fifo}; read -r _ <${fifo}; echo 0123456789`
    const tag = `ahead-${codec}`
    const whole = collect(client().start({ process: shell(script), tag, stdin: false, withOffsets: true }))
    await eventually('the process to wait', async () => existsSync(fifo))
    const events = client().connect({ process: { selector: { case: 'tag', value: tag } }, fromOffset: 4n })
    const iterator = events[Symbol.asyncIterator]()
    expect((await iterator.next()).value?.event?.event.case).toBe('start')
    await collect(client().start({ process: shell(`echo >${fifo}`), stdin: false }))
    const ahead = await collect({ [Symbol.asyncIterator]: () => iterator })
    expect([ahead.offsets[0], ahead.stdout.toString()]).toEqual([4, '456789\n'])
    expect((await whole).stdout.toString()).toBe('0123456789\n')
  })
})

describe('process.Process', () => {
  it('is started by name exactly as asked, in its own session, with nothing inherited', async () => {
    // No pipeline around `ls`: the shell itself holds one's pipe for a moment.
    const script = 'cat /proc/$$/cmdline | tr "\\0" " "; cut -d" " -f5,6 /proc/$$/stat; echo $$; umask; ls /proc/$$/fd'
    const { stdout } = await collect(
      harness.client(Process).start({ process: { cmd: 'sh', args: ['-c', script, 'x'] }, stdin: false }),
    )
    const [first = '', pid = '', umask = '', ...descriptors] = stdout.toString().trim().split('\n')
    expect(first.startsWith('sh -c ')).toBe(true)
    expect(first.endsWith(`${pid} ${pid}`)).toBe(true)
    expect(descriptors.filter((fd) => Number(fd) < 20)).toEqual(['0', '1', '2'])
    expect(umask).toBe('0022')
  })

  it('runs as the asked user with its groups and environment', async () => {
    await harness.init({ envs: { FROM_INIT: 'init', BOTH: 'init' } })
    const nobody = harness.client(Process, 'binary', asUserHeader('nobody'))
    const script = 'id -un; echo $USER $LOGNAME $HOME $FROM_INIT $BOTH; echo more >/dev/stdout'
    const { stdout, stderr } = await collect(
      nobody.start({ process: { ...shell(script), envs: { BOTH: 'request' } }, stdin: false }),
    )
    const home = readFileSync('/etc/passwd', 'utf8').match(/^nobody:.*:(.*):.*$/m)?.[1]
    expect(stderr.toString()).toBe('')
    expect(stdout.toString()).toBe(`nobody\nnobody nobody ${home} init request\nmore\n`)
  })

  it('refuses a directory its user may not enter', async () => {
    const nobody = harness.client(Process, 'binary', asUserHeader('nobody'))
    await expect(collect(nobody.start({ process: { cmd: 'pwd', cwd: '/root' } }))).rejects.toMatchObject({ code: 3 })
  })

  it('ends promptly although a background child holds the pipes, with all the main process wrote', async () => {
    const script = 'sleep 60 & head -c 60000 /dev/zero; echo done >&2'
    const result = await collect(harness.client(Process).start({ process: shell(script), stdin: false }))
    expect(result.stdout.length).toBe(60_000)
    expect(result.stderr.toString()).toBe('done\n')
    expect(result.end?.exitCode).toBe(0)
  })

  it('does not let a background child die of SIGPIPE when it writes after the end', async () => {
    const file = join(harness.dir, 'survived')
    const gate = join(harness.dir, 'gate')
    const script = `(while [ ! -e ${gate} ]; do sleep 0.05; done; echo late && touch ${file}) &`
    await collect(harness.client(Process).start({ process: shell(script), stdin: false }))
    await collect(harness.client(Process).start({ process: { cmd: 'touch', args: [gate] }, stdin: false }))
    await eventually('the process to get there', async () => existsSync(file))
  })

  it('kills the whole tree at the deadline and delivers what came before', async () => {
    const script = 'echo before; sh -c "sleep 100 & echo \\$!; wait"'
    const result = await collect(
      harness.client(Process).start({ process: shell(script), stdin: false, timeoutMs: 700 }),
    )
    expect(result.end).toMatchObject({ timedOut: true, exitCode: -1, signal: 9 })
    const [before, pid] = result.stdout.toString().split('\n')
    expect(before).toBe('before')
    await eventually('the process to get there', async () => !isAlive(Number(pid)))
  })

  it('ends with deadline_exceeded when the call itself had the deadline', async () => {
    const response = await startByHand({ process: shell('sleep 100') }, { 'connect-timeout-ms': '300' })
    expect(response.at(-2)).toMatchObject({ event: { end: { timedOut: true } } })
    expect(response.at(-1)).toMatchObject({ error: { code: 'deadline_exceeded' } })
  })

  it('signals the group, lists what runs and forgets nothing that ended', async () => {
    const client = harness.client(Process)
    const result = collect(
      client.start({ process: shell('sleep 100'), tag: 'sleeper', stdin: false, foreground: true }),
    )
    const selector = { selector: { case: 'tag', value: 'sleeper' } } as const
    await eventually('the process to get there', async () =>
      (await client.list({})).processes.some((each) => each.tag === 'sleeper'),
    )
    const [info] = (await client.list({})).processes.filter((each) => each.tag === 'sleeper')
    expect(info).toMatchObject({ running: true, foreground: true, pty: false })
    await client.sendSignal({ process: selector, signal: Signal.SIGTERM })
    expect((await result).end).toMatchObject({ status: 'signal: terminated', signal: 15 })
    expect((await client.list({})).processes.some((each) => each.tag === 'sleeper')).toBe(false)
    const kept = (await client.list({ includeEnded: true })).processes.find((each) => each.tag === 'sleeper')
    expect(kept?.running).toBe(false)
    await expect(client.sendSignal({ process: selector, signal: Signal.SIGKILL })).rejects.toMatchObject({ code: 5 })
  })

  it('has its tag for itself while it runs', async () => {
    const client = harness.client(Process)
    const start = (script: string) => client.start({ process: shell(script), tag: 'single' })
    const events = start('cat')[Symbol.asyncIterator]()
    await events.next()
    await expect(collect(start('true'))).rejects.toMatchObject({ code: Code.AlreadyExists })
    await client.closeStdin({ process: { selector: { case: 'tag', value: 'single' } } })
    while (!(await events.next()).done) {
      // until it has ended
    }
    expect((await collect(start('true'))).end).toMatchObject({ exitCode: 0 })
  })

  it('lives on without its reader and can be joined again', async () => {
    const client = harness.client(Process)
    const gate = join(harness.dir, 'gate2')
    const abort = new AbortController()
    const script = `echo one; while [ ! -e ${gate} ]; do sleep 0.05; done; echo two`
    const events = client.start({ process: shell(script), tag: 'orphan', stdin: false }, { signal: abort.signal })
    const iterator = events[Symbol.asyncIterator]()
    await iterator.next()
    abort.abort()
    await iterator.next().catch(() => undefined)
    const joined = collect(client.connect({ process: { selector: { case: 'tag', value: 'orphan' } }, fromOffset: 0n }))
    await collect(client.start({ process: { cmd: 'touch', args: [gate] }, stdin: false }))
    expect((await joined).stdout.toString()).toBe('one\ntwo\n')
  })

  it('sends keepalives while nothing happens', async () => {
    const client = harness.client(Process, 'binary', { 'keepalive-ping-interval': '0.05' })
    const gate = join(harness.dir, 'gate3')
    for await (const { event } of client.start({
      process: shell(`while [ ! -e ${gate} ]; do sleep 0.05; done`),
      stdin: false,
    })) {
      if (event?.event.case === 'keepalive' && !existsSync(gate)) {
        await collect(client.start({ process: { cmd: 'touch', args: [gate] }, stdin: false }))
      }
    }
    expect(existsSync(gate)).toBe(true)
  })

  it('answers input to a process without stdin, or one that closed it, with a clear error', async () => {
    const client = harness.client(Process)
    const result = collect(client.start({ process: shell('exec <&-; sleep 100'), tag: 'deaf' }))
    const process = { selector: { case: 'tag', value: 'deaf' } } as const
    const input = { input: { case: 'stdin', value: Buffer.from('x') } } as const
    await eventually('the process to get there', async () => {
      const attempt = await client.sendInput({ process, input }).then(
        () => 'taken',
        (error) => error.rawMessage,
      )
      return attempt === 'The process has closed its standard input.'
    })
    await client.sendSignal({ process, signal: Signal.SIGKILL })
    await result
  })
})

async function startByHand(
  request: object,
  headers: Record<string, string>,
): Promise<readonly Record<string, unknown>[]> {
  const payload = Buffer.from(JSON.stringify(request))
  const head = Buffer.alloc(5)
  head.writeUInt32BE(payload.length, 1)
  const response = await harness.fetch('/process.Process/Start', {
    method: 'POST',
    headers: { 'content-type': 'application/connect+json', ...headers },
    body: Buffer.concat([head, payload]),
  })
  let rest = Buffer.from(await response.arrayBuffer())
  const frames: Record<string, unknown>[] = []
  while (rest.length > 0) {
    const length = rest.readUInt32BE(1)
    frames.push(JSON.parse(rest.subarray(5, 5 + length).toString()))
    rest = rest.subarray(5 + length)
  }
  return frames
}

function isAlive(pid: number): boolean {
  // A killed process stays a zombie until its parent collects it.
  return existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
}
