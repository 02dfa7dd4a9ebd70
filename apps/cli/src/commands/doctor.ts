import { AppError } from '@wrenn/base'
import type { Command } from 'commander'
import { z } from 'zod'
import type { CliConfig } from '../config.js'
import { type CommonOptions, contextOf, ExitCode, withDir, withJson } from '../context.js'
import type { Output } from '../output.js'
import { layoutOf } from '../up/layout.js'
import { askHostAgent } from '../up/service-command.js'

const checkSchema = z.looseObject({
  id: z.string(),
  title: z.string(),
  status: z.enum(['ok', 'warn', 'fail']),
  detail: z.string(),
  fix: z.string().optional(),
})
const reportSchema = z.looseObject({
  checks: z.array(checkSchema),
  bestImprovement: checkSchema.optional(),
  candidates: z.array(z.looseObject({ name: z.string(), ok: z.boolean(), reason: z.string() })),
})
type Check = z.infer<typeof checkSchema>
type DoctorReport = z.infer<typeof reportSchema>

type Style = Pick<Output, 'bold' | 'dim' | 'mark'>

/**
 * `wrenn doctor`: the host agent's own checks, for which no platform need run. Exit code 1 when a check fails; warnings do
 * not count.
 */
export function addDoctor(program: Command): void {
  const command = program
    .command('doctor')
    .description('check this machine: engine, packages, file system, network, and the one thing to improve')
  withDir(withJson(command)).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { type: _, ...report } = await examine(config)
    output.result(report, () => showReport(report, output))
    if (report.checks.some(({ status }) => status === 'fail')) throw new ExitCode(1)
  })
}

async function examine(config: CliConfig): Promise<DoctorReport> {
  try {
    return await askHostAgent({ args: ['doctor'], config, dir: layoutOf(config.dir).dir, schema: reportSchema })
  } catch (error) {
    if (process.getuid?.() === 0) throw error
    throw new AppError('forbidden', 'Some of these checks need root: run this with sudo.', { cause: error })
  }
}

/** Checks, then the engines with why each is or is not used, then the one improvement. */
export function showReport({ checks, candidates, bestImprovement }: DoctorReport, style: Style): string {
  const width = Math.max(...checks.map(({ title }) => title.length))
  const lines = checks.flatMap((check) => showCheck(check, width, style))
  if (candidates.length > 0) {
    lines.push('', style.bold('Engines, best first'))
    const used = candidates.find(({ ok }) => ok)
    for (const one of candidates) {
      const what = one === used ? 'in use. ' : ''
      lines.push(`${style.mark(one.ok ? 'ok' : 'off')} ${one.name.padEnd(width)}  ${what}${one.reason}`)
    }
  }
  if (bestImprovement?.fix !== undefined) {
    lines.push('', `${style.bold('What would improve it most')}: ${bestImprovement.fix}`)
  }
  return lines.join('\n')
}

function showCheck({ title, status, detail, fix }: Check, width: number, style: Style): string[] {
  const line = `${style.mark(status)} ${title.padEnd(width)}  ${detail}`
  return fix === undefined || status === 'ok' ? [line] : [line, style.dim(`${' '.repeat(width + 4)}→ ${fix}`)]
}
