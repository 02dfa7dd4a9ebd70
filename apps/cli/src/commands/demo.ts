import { AppError } from '@wrenn/base'
import type { Capsule, Wrenn } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect, findApiUrl } from '../connection.js'
import { type CommonOptions, type Context, contextOf, ExitCode, withDir, withJson } from '../context.js'
import { Interrupt } from '../interrupt.js'
import { writeFully } from '../output.js'
import { showMs } from '../units.js'
import { startChildPlatform } from '../up/child-platform.js'
import { askReady, waitReady } from '../up/readiness.js'

const EXEC_RUNS = 10
const FILE = '/tmp/wrenn-demo.txt'

/** Prints the machine it runs on: proof that this is another kernel than ours. */
const PROGRAM = `
import os, platform, sys
print("Hello from a microVM:", platform.platform(), flush=True)
print("uname:", " ".join(os.uname()), flush=True)
print("python:", sys.version.split()[0], "cpus:", os.cpu_count(), flush=True)
print("6 * 7 =", 6 * 7, flush=True)
`

/** `wrenn demo`: the first thing a newcomer runs, so it brings a platform up when none runs, and takes that down again. */
export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .description(
      'run Python inside a fresh microVM and measure it; starts a platform when none runs, and stops it again',
    )
  withDir(withJson(command)).action(async (options: CommonOptions) => demo(contextOf(options)))
}

async function demo(context: Context): Promise<void> {
  using interrupt = new Interrupt()
  try {
    const startedAt = performance.now()
    const facts = await withPlatform(context, interrupt.signal, (wrenn) => show(context, wrenn, interrupt.signal))
    const all = { ok: true, ...facts, total_ms: Math.round(performance.now() - startedAt) }
    if (context.output.json) context.output.result(all, () => '')
    else context.output.note(`Done in ${showMs(all.total_ms)}; nothing is left running that was not before.`)
  } catch (error) {
    if (interrupt.exitCode !== undefined) throw new ExitCode(interrupt.exitCode)
    throw error
  }
}

type Facts = Readonly<Record<string, unknown>>

/** Uses the platform that runs; without one, starts one and stops it afterwards. */
async function withPlatform(
  context: Context,
  signal: AbortSignal,
  use: (wrenn: Wrenn) => Promise<Facts>,
): Promise<Facts> {
  const { config } = context
  const apiUrl = await findApiUrl(config)
  const say = (text: string): void => note(context, text)
  if (apiUrl !== undefined) {
    // One that this machine is just starting will answer; an address that somebody gave may be wrong.
    if (config.apiUrl !== undefined && !(await askReady(apiUrl)).answered)
      throw new AppError('host_unavailable', `No Wrenn server answers at ${apiUrl} (WRENN_API_URL).`)
    await connect(config) // A key that we may not read is told before the wait, not after it.
    say(`Using the platform at ${apiUrl}`)
    await waitReady(apiUrl, { signal, onReasons: (reasons) => say(reasons.join(' ')) })
    return { platform: 'running', ...(await use(await connect(config))) }
  }
  say(`Starting a platform in ${config.dir}; the first time builds an image, which takes minutes`)
  const startedAt = performance.now()
  await using _platform = await startPlatform(context, signal)
  const platform_start_ms = Math.round(performance.now() - startedAt)
  say(`Platform ready after ${showMs(platform_start_ms)}`)
  return { platform: 'started', platform_start_ms, ...(await use(await connect(config))) }
}

async function startPlatform({ config, output }: Context, signal: AbortSignal): Promise<AsyncDisposable> {
  const progress = output.progress('starting')
  try {
    return await startChildPlatform({ config, signal, onNote: (line) => progress.update(line.replace(/^› /, '')) })
  } finally {
    progress.done()
  }
}

/** In JSON mode only the last line of stdout is JSON; what people may want to see goes to stderr. */
function note({ output }: Context, text: string): void {
  if (output.json) process.stderr.write(`${text}\n`)
  else output.note(text)
}

async function show(context: Context, wrenn: Wrenn, signal: AbortSignal): Promise<Facts> {
  const startedAt = performance.now()
  await using capsule = await wrenn.capsules.create({ name: 'demo', signal })
  const createMs = performance.now() - startedAt
  const { engine, path, timings } = capsule.info
  note(context, `Capsule ${capsule.id} runs after ${showMs(createMs)} (${engine}, ${path})`)
  const { text, firstOutputAt } = await runProgram(context, capsule)
  const fileOk = await tryFile(capsule)
  note(context, `Wrote and read back a file: ${fileOk ? 'same bytes' : 'DIFFERENT BYTES'}`)
  const p50 = await measureExec(capsule)
  note(context, `A warm command takes ${p50.toFixed(1)} ms (median of ${EXEC_RUNS})`)
  return {
    engine,
    path,
    capsule_id: capsule.id,
    template: capsule.info.template,
    create_ms: round(createMs),
    first_output_ms: round(firstOutputAt - startedAt),
    exec_ms_p50: round(p50),
    file_ok: fileOk,
    output: text,
    timings,
  }
}

async function runProgram(context: Context, capsule: Capsule): Promise<{ text: string; firstOutputAt: number }> {
  let firstOutputAt = 0
  let text = ''
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  await using program = await capsule.stream(['python3', '-c', PROGRAM], { timeoutMs: 60_000 })
  for await (const event of program) {
    if (event.type === 'exit' && event.exitCode !== 0)
      throw new AppError('guest_error', `python3 ended with ${event.exitCode}: ${text}`)
    if (event.type !== 'stdout' && event.type !== 'stderr') continue
    firstOutputAt ||= performance.now()
    text += decoder.decode(event.data, { stream: true })
    await writeFully(context.output.json ? process.stderr : process.stdout, event.data)
  }
  return { text, firstOutputAt }
}

async function tryFile(capsule: Capsule): Promise<boolean> {
  const content = `written by the demo, ${crypto.randomUUID()}\n`
  await capsule.files.write(FILE, content)
  return (await capsule.files.readText(FILE)) === content
}

async function measureExec(capsule: Capsule): Promise<number> {
  const took: number[] = []
  for (let run = 0; run < EXEC_RUNS; run += 1) {
    const startedAt = performance.now()
    await capsule.exec(['true'])
    took.push(performance.now() - startedAt)
  }
  took.sort((a, b) => a - b)
  return took[Math.floor(took.length / 2)] ?? 0
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10
}
