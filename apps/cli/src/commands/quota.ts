import type { Quota, QuotaUse } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { table } from '../output.js'
import { showBytes } from '../units.js'

const help = `
Paused capsules count for files only: pausing one frees its CPUs and memory.

Example:
  wrenn quota --json | jq .running_capsules`

/** `wrenn quota`: what the team of the key uses and may use. */
export function addQuota(program: Command): void {
  const command = program
    .command('quota')
    .description('show what your team uses and may use')
    .addHelpText('after', help)
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const quota = await (await connect(config)).quota()
    output.result(toJson(quota), () => showQuota(quota))
  })
}

function toJson(quota: Quota): object {
  const use = ({ used, limit }: QuotaUse): object => ({ used, limit: limit ?? null })
  return {
    running_capsules: use(quota.runningCapsules),
    vcpus: use(quota.vcpus),
    memory_mb: use(quota.memoryMib),
    pool_bytes: use(quota.poolBytes),
    capsules: use(quota.capsules),
  }
}

function showQuota(quota: Quota): string {
  const row = (what: string, { used, limit }: QuotaUse, show: (value: number) => string = String): string[] => [
    what,
    show(used),
    limit === undefined ? 'no limit' : show(limit),
    limit === undefined || limit === 0 ? '' : `${Math.round((used / limit) * 100)} %`,
  ]
  return table(
    ['', 'USED', 'LIMIT', ''],
    [
      row('running capsules', quota.runningCapsules),
      row('virtual CPUs running', quota.vcpus),
      row('memory running', quota.memoryMib, (mib) => `${mib} MiB`),
      row('files', quota.poolBytes, showBytes),
      row('capsules, paused ones too', quota.capsules),
    ],
  )
}
