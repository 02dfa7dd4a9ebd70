import { createInterface } from 'node:readline/promises'
import { AppError, waitFor } from '@wrenn/base'
import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, contextOf, ExitCode, withDir, withJson } from '../context.js'
import { table } from '../output.js'
import { showBytes } from '../units.js'
import { runHostAgent } from '../up/host-agent-command.js'
import { layoutOf } from '../up/layout.js'
import { isRunning, signalProcess } from '../up/process-id.js'
import { findRunning } from '../up/record.js'
import { requireRoot } from '../up/requirements.js'

/** Ending many capsules takes a while; a supervisor that needs longer says so in its log. */
const DOWN_TIMEOUT_MS = 120_000

export function addDown(program: Command): void {
  const command = program
    .command('down')
    .description('stop the `wrenn up` of a directory; capsules keep running')
    .option('--stop-capsules', 'end all capsules too')
  withDir(withJson(command)).action(async (options: CommonOptions & { stopCapsules?: boolean }) => {
    const { config, output } = contextOf(options)
    const layout = layoutOf(config.dir)
    const running = await findRunning(layout)
    if (!running) {
      output.result({ stopped: false }, () => `Nothing runs in ${layout.dir}.`)
      return
    }
    const { supervisor } = running
    await signalProcess(supervisor, options.stopCapsules ? 'SIGUSR2' : 'SIGTERM')
    await waitFor(async () => ((await isRunning(supervisor)) ? undefined : true), {
      timeoutMs: DOWN_TIMEOUT_MS,
      intervalMs: 50,
      what: `the platform (pid ${supervisor.pid}) to stop`,
    })
    output.result({ stopped: true, pid: supervisor.pid }, () => `Stopped (pid ${supervisor.pid}).`)
  })
}

export function addClean(program: Command): void {
  const command = program
    .command('clean')
    .description('remove from this machine all that belongs to a directory: capsules, mounts, networks, files')
    .option('--yes', 'do not ask')
  withDir(withJson(command)).action(async (options: CommonOptions & { yes?: boolean }) => {
    const { config, output } = contextOf(options)
    requireRoot()
    const layout = layoutOf(config.dir)
    const running = await findRunning(layout)
    if (running) {
      throw new AppError(
        'conflict',
        `Wrenn runs in ${layout.dir} (pid ${running.supervisor.pid}): run \`wrenn down\` first.`,
      )
    }
    if (!options.yes) await confirm(`Remove everything in ${layout.dir}, capsules and their files included?`)
    const lines: string[] = []
    const code = await runHostAgent({
      args: ['clean'],
      config,
      dir: layout.dir,
      onLine: (line) => (options.json ? lines.push(line) : output.note(line)),
    })
    if (code !== 0) throw new AppError('engine_failure', `The clean-up was not complete (exit code ${code}).`)
    output.result({ cleaned: true, dir: layout.dir, lines }, () => `Cleaned ${layout.dir}.`)
  })
}

async function confirm(question: string): Promise<void> {
  if (!process.stdin.isTTY) throw new AppError('invalid_request', 'Nobody is there to ask: give --yes.')
  const prompt = createInterface({ input: process.stdin, output: process.stderr })
  try {
    const answer = await prompt.question(`${question} [y/N] `)
    if (!/^y(es)?$/i.test(answer.trim())) throw new ExitCode(1)
  } finally {
    prompt.close()
  }
}

const checkSchema = z.looseObject({
  id: z.string(),
  title: z.string(),
  status: z.enum(['ok', 'warn', 'fail']),
  detail: z.string(),
  fix: z.string().optional(),
})
type Check = z.infer<typeof checkSchema>
const doctorSchema = z.looseObject({ checks: z.array(checkSchema), bestImprovement: checkSchema.optional() })

const marks: Readonly<Record<Check['status'], string>> = { ok: '✓', warn: '!', fail: '✗' }
const TITLE_WIDTH = 24

function showCheck({ status, title, detail, fix }: Check): string {
  const line = `${marks[status]} ${title.padEnd(TITLE_WIDTH)} ${detail}`
  return fix === undefined ? line : `${line}\n${' '.repeat(TITLE_WIDTH + 3)}→ ${fix}`
}

function showReport({ checks, bestImprovement }: z.infer<typeof doctorSchema>): string {
  const lines = checks.map(showCheck)
  if (bestImprovement) lines.push('', `The one thing that would improve most: ${bestImprovement.title}.`)
  return lines.join('\n')
}

export function addDoctor(program: Command): void {
  const command = program
    .command('doctor')
    .description('check this machine: engine, packages, file system, network, and the one thing to improve')
  withDir(withJson(command)).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const lines: string[] = []
    const code = await runHostAgent({
      args: ['doctor', '--json'],
      config,
      dir: layoutOf(config.dir).dir,
      onLine: (line) => lines.push(line),
    })
    const report = doctorSchema.safeParse(parseJson(lines.join('\n')))
    if (!report.success)
      throw new AppError('engine_failure', `The host agent's report cannot be read: ${lines.join(' ').slice(0, 500)}`)
    output.result(report.data, () => showReport(report.data))
    if (code !== 0) throw new ExitCode(code)
  })
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const imageLineSchema = z.discriminatedUnion('type', [
  z.looseObject({
    type: z.literal('progress'),
    step: z.string(),
    detail: z.string().optional(),
    fraction: z.number().optional(),
  }),
  z.looseObject({ type: z.literal('result') }),
  z.looseObject({ type: z.literal('error'), code: z.string(), message: z.string() }),
])

const imageListSchema = z.looseObject({
  images: z.array(
    z.looseObject({ name: z.string(), size_bytes: z.number().optional(), created_at: z.string().optional() }),
  ),
})

async function runImageCommand(args: readonly string[], options: CommonOptions): Promise<void> {
  const { config, output } = contextOf(options)
  requireRoot()
  const progress = output.progress(args.join(' '))
  let result: unknown
  let failure: AppError | undefined
  const onLine = (line: string): void => {
    const parsed = imageLineSchema.safeParse(parseJson(line))
    if (!parsed.success) return
    const event = parsed.data
    if (event.type === 'result') result = event
    else if (event.type === 'error') failure = new AppError(event.code, event.message)
    else {
      const share = event.fraction === undefined ? '' : ` ${Math.round(event.fraction * 100)} %`
      progress.update(`${event.step}${event.detail ? `: ${event.detail}` : ''}${share}`)
    }
  }
  try {
    const code = await runHostAgent({
      args: ['image', ...args, '--json'],
      config,
      dir: layoutOf(config.dir).dir,
      onLine,
    })
    if (failure) throw failure
    if (code !== 0 || result === undefined)
      throw new AppError('engine_failure', `The image command failed (exit code ${code}).`)
  } finally {
    progress.done()
  }
  output.result(result, () => showImages(result))
}

function showImages(result: unknown): string {
  const list = imageListSchema.safeParse(result)
  if (!list.success) return 'Done.'
  const rows = list.data.images.map((image) => [
    image.name,
    image.size_bytes === undefined ? '' : showBytes(image.size_bytes),
    image.created_at ?? '',
  ])
  return table(['NAME', 'SIZE', 'CREATED'], rows)
}

export function addImage(program: Command): void {
  const image = program.command('image').description('base images of this machine')
  const build = image
    .command('build <name>')
    .description('build an image from images/<name>')
    .option('--rebuild', 'also when it is there already')
  withDir(withJson(build)).action(async (name: string, options: CommonOptions & { rebuild?: boolean }) =>
    runImageCommand(['build', name, ...(options.rebuild ? ['--rebuild'] : [])], options),
  )
  withDir(withJson(image.command('ls').description('list images'))).action(async (options: CommonOptions) =>
    runImageCommand(['ls'], options),
  )
  withDir(withJson(image.command('rm <name>').description('remove an image that no capsule uses'))).action(
    async (name: string, options: CommonOptions) => runImageCommand(['rm', name], options),
  )
}
