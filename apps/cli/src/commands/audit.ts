import { createReadStream } from 'node:fs'
import { AppError } from '@wrenn/base'
import type { AuditEntry, ListAuditOptions } from '@wrenn/sdk'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { ChainVerifier, linesOf } from '../audit-verify.js'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { printable, table, writeFully } from '../output.js'
import { parseInteger } from '../units.js'

const help = `
Examples:
  wrenn audit ls --resource cl-…
  wrenn audit export > trail.jsonl
  wrenn audit verify trail.jsonl`

/** `wrenn audit`. */
export function addAudit(program: Command): void {
  const audit = program.command('audit').description('what happened in your team').addHelpText('after', help)
  addList(audit)
  addExport(audit)
  addVerify(audit)
}

interface ListCommandOptions extends CommonOptions {
  readonly actor?: string
  readonly action?: string[]
  readonly resource?: string
  readonly outcome?: 'accepted' | 'success' | 'failure'
  readonly since?: Date
  readonly until?: Date
  readonly limit: number
}

function addList(audit: Command): void {
  const command = audit
    .command('ls')
    .description('list what happened, newest first')
    .option('--actor <id>', 'only by this key')
    .option('--action <action...>', 'only these, such as capsule.create')
    .option('--resource <id>', 'only about this capsule, key or snapshot')
    .addOption(new Option('--outcome <outcome>', 'only with it').choices(['accepted', 'success', 'failure']))
    .option('--since <time>', 'from this time on, such as 2026-11-28T12:00Z', parseTime)
    .option('--until <time>', 'before this time', parseTime)
    .option('--limit <n>', 'at most so many', parseInteger, 50)
    .addHelpText('after', '\nExample:\n  wrenn audit ls --action api_key.create --json | jq -r .[].actor_id')
  withJson(command).action(async (options: ListCommandOptions) => {
    const { config, output } = contextOf(options)
    const entries: AuditEntry[] = []
    for await (const entry of (await connect(config)).audit.list(filterOf(options))) {
      if (entries.length >= options.limit) break
      entries.push(entry)
    }
    output.result(entries, () => showEntries(entries))
  })
}

function filterOf({ actor, action, resource, outcome, since, until }: ListCommandOptions): ListAuditOptions {
  return {
    ...(actor === undefined ? {} : { actorId: actor }),
    ...(action === undefined ? {} : { actions: action }),
    ...(resource === undefined ? {} : { resourceId: resource }),
    ...(outcome === undefined ? {} : { outcome }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
  }
}

function showEntries(entries: readonly AuditEntry[]): string {
  const rows = entries.map((entry) => [
    entry.createdAt.toISOString(),
    printable(entry.actorName ?? (entry.actorType === 'user' ? 'a deleted account' : 'the platform')),
    entry.action,
    printable(entry.resourceId),
    entry.outcome,
    entry.details.error ?? '',
  ])
  return table(['TIME', 'WHO', 'ACTION', 'WHAT', 'OUTCOME', ''], rows)
}

const exportHelp = `
One entry a line, oldest first. Exports can be put together: --after goes on where an earlier one ended.

Example:
  wrenn audit export --after 1200 >> trail.jsonl`

function addExport(audit: Command): void {
  audit
    .command('export')
    .description('write the whole trail as lines of JSON')
    .option('--after <seq>', 'only what comes after this place', parseInteger)
    .addHelpText('after', exportHelp)
    .action(async ({ after }: { readonly after?: number }) => {
      const { config } = contextOf({})
      const { audit: trail } = await connect(config)
      const body = await trail.export(after === undefined ? {} : { afterSeq: after })
      for await (const chunk of body) await writeFully(process.stdout, chunk)
    })
}

const verifyHelp = `
Needs no platform. Says whether every entry is as it was written and none is missing between the first and the last; compare
the last hash with one that you noted to know that nothing is missing at the end.

Examples:
  wrenn audit verify trail.jsonl
  wrenn audit export | wrenn audit verify`

function addVerify(audit: Command): void {
  const command = audit
    .command('verify [file]')
    .description('check the chain of an export (default: of the standard input)')
    .addHelpText('after', verifyHelp)
  withJson(command).action(async (file: string | undefined, options: CommonOptions) => {
    const { output } = contextOf(options)
    const verifier = new ChainVerifier()
    const input = file === undefined ? process.stdin : createReadStream(file)
    for await (const lines of linesOf(input.setEncoding('utf8'))) for (const line of lines) verifier.add(line)
    const verified = verifier.result()
    if (verified === undefined) throw new AppError('audit_broken', 'There is no entry in it.')
    const { entries, firstSeq, lastSeq, lastHash } = verified
    output.result(
      { entries, first_seq: firstSeq, last_seq: lastSeq, last_hash: lastHash },
      () => `${entries} entries, places ${firstSeq} to ${lastSeq}, unbroken; last hash ${lastHash}`,
    )
  })
}

function parseTime(text: string): Date {
  const time = new Date(text)
  if (Number.isNaN(time.getTime())) throw new InvalidArgumentError('Give a time such as 2026-11-28T12:00Z.')
  return time
}
