import { dirname, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, type Context, contextOf, withDir, withJson } from '../context.js'
import { facts } from '../output.js'
import { layoutOf } from '../up/layout.js'
import { openDatabaseFor } from '../up/offline-database.js'
import { askControlPlane } from '../up/service-command.js'
import { archiveFacts, archiveJson, archiveSchema, missingKeysText, withProgress } from './backup.js'

const restoredSchema = archiveSchema.extend({
  missingKeys: z.array(z.string()),
  keptAt: z.string().optional(),
  auditEntries: z.number(),
  brokenChains: z.array(z.looseObject({ teamId: z.string(), seq: z.number() })),
  sessionsEnded: z.number(),
  operationsEnded: z.number(),
  capsulesUnsure: z.number(),
  livesExtended: z.number(),
  keysRevoked: z.number(),
  keysInUse: z.number(),
})
type Restored = z.output<typeof restoredSchema>

const help = `
No platform may be running (capsules may: they go on). The backup is checked as a whole first; then all happens in one transaction, so that a
failure leaves the database as it was. With --replace, what is there is kept as a backup before. A backup of an older version is brought up to
this one; one of a newer version is refused.

Afterwards nobody is logged in, what was under way is not carried on, and hosts say where capsules are. Nothing on a host is destroyed. API keys
that were revoked since the backup work again, unless the database that is replaced knows of it: look at \`wrenn key ls\`.

Examples:
  sudo wrenn down && sudo wrenn restore /var/backups/wrenn-2026-11-30.tar.gz --replace
  sudo wrenn restore wrenn.tar.gz            on a new machine, with the file encryption-key put back first`

interface RestoreOptions extends CommonOptions {
  readonly replace?: boolean
  readonly keep?: string
  readonly withoutKeys?: boolean
}

/** `wrenn restore`. */
export function addRestore(program: Command): void {
  const command = program
    .command('restore <file>')
    .description("put a backup in the place of the platform's database")
    .option('--replace', 'also where there is something; it is kept as a backup')
    .option('--keep <file>', 'where that is kept (default: before-restore-<time>.tar.gz beside the backup)')
    .option('--without-keys', 'also when secrets in it cannot be opened; they are lost')
    .addHelpText('after', help)
  withDir(withJson(command)).action(async (file: string, options: RestoreOptions) => {
    await restore(contextOf(options), resolve(file), options)
  })
}

async function restore({ config, output }: Context, file: string, options: RestoreOptions): Promise<void> {
  const layout = layoutOf(config.dir)
  const keepAt = options.replace === true ? resolve(options.keep ?? keptBeside(file)) : '-'
  await using _ = await openDatabaseFor({ config, layout }, 'alone, made when missing')
  const args = ['restore', file, keepAt, ...(options.withoutKeys === true ? ['--without-keys'] : [])]
  const restored = await withProgress(output, 'checking the backup', (onProgress) =>
    askControlPlane({ args, config, layout, onProgress, schema: restoredSchema }),
  )
  const { missingKeys, brokenChains } = restored
  if (missingKeys.length > 0) output.warn(missingKeysText(missingKeys))
  for (const { teamId, seq } of brokenChains) {
    output.warn(`the audit trail of ${teamId} is not as it was written from place ${seq} on; so it was in the backup`)
  }
  output.result(toJson(restored), () => toText(restored))
}

function keptBeside(file: string): string {
  const stamp = new Date().toISOString().replaceAll(':', '').replace(/\.\d+/, '')
  return join(dirname(file), `before-restore-${stamp}.tar.gz`)
}

function toJson(restored: Restored) {
  return {
    ...archiveJson(restored),
    ...{ kept_at: restored.keptAt ?? null, missing_keys: restored.missingKeys },
    audit_entries: restored.auditEntries,
    broken_chains: restored.brokenChains.map(({ teamId, seq }) => ({ team_id: teamId, seq })),
    ...{ sessions_ended: restored.sessionsEnded, operations_ended: restored.operationsEnded },
    ...{ capsules_unsure: restored.capsulesUnsure, lives_extended: restored.livesExtended },
    ...{ keys_revoked: restored.keysRevoked, keys_in_use: restored.keysInUse },
  }
}

function toText(restored: Restored): string {
  const { keysRevoked, sessionsEnded, operationsEnded, capsulesUnsure, livesExtended } = restored
  return facts({
    ...archiveFacts(restored),
    kept: restored.keptAt,
    'audit trail': `${restored.auditEntries} entries checked`,
    'API keys': `${restored.keysInUse} work now${keysRevoked > 0 ? `, ${keysRevoked} were revoked again` : ''}: \`wrenn key ls\``,
    sessions: `${sessionsEnded} ended`,
    'under way': operationsEnded === 0 ? undefined : `${operationsEnded} not carried on`,
    capsules: `${capsulesUnsure} missing until their host was asked, ${livesExtended} lives extended`,
  })
}
