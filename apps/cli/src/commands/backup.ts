import { resolve } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, type Context, contextOf, withDir, withJson } from '../context.js'
import { facts, type Output } from '../output.js'
import { showBytes } from '../units.js'
import { layoutOf } from '../up/layout.js'
import { openDatabaseFor } from '../up/offline-database.js'
import { askControlPlane, type ServiceProgress } from '../up/service-command.js'

/** What the control plane says of an archive. */
export const archiveSchema = z.looseObject({
  takenAt: z.string(),
  version: z.string(),
  serverVersion: z.string(),
  migration: z.string(),
  keyIds: z.array(z.string()),
  tables: z.number(),
  rows: z.number(),
  bytes: z.number(),
})
const backupSchema = archiveSchema.extend({ archiveBytes: z.number(), archiveSha256: z.string() })
const verifiedSchema = archiveSchema.extend({ missingKeys: z.array(z.string()) })

const help = `
The whole database as it is at one moment, in one file (.tar.gz) that only its owner may read; the platform may run meanwhile. What is not in it:
capsules and their files, which are on their hosts, and the key by which secrets in it are encrypted (the file encryption-key in the
platform's directory, or WRENN_ENCRYPTION_KEY): keep a copy of that in another place.

Examples:
  sudo wrenn backup /var/backups/wrenn-$(date +%F).tar.gz
  sudo wrenn backup - | ssh elsewhere 'cat > wrenn.tar.gz'
  sudo wrenn backup verify /var/backups/wrenn-2026-11-30.tar.gz`

/** `wrenn backup`. */
export function addBackup(program: Command): void {
  const backup = program
    .command('backup')
    .description("write the platform's database into a file")
    .argument('<file>', 'a new file, or - for the standard output')
    .addHelpText('after', help)
  withDir(withJson(backup)).action(async (file: string, options: CommonOptions) => {
    await backUp(contextOf(options), file)
  })
  addVerify(backup)
}

async function backUp({ config, output }: Context, file: string): Promise<void> {
  const layout = layoutOf(config.dir)
  const isStream = file === '-'
  await using _ = await openDatabaseFor({ config, layout }, 'also while the platform runs')
  const done = await withProgress(output, 'reading the database', (onProgress) =>
    askControlPlane({
      ...{ config, layout, onProgress, schema: backupSchema },
      args: ['backup', ...(isStream ? [] : [resolve(file)])],
      ...(isStream ? { passedFd: process.stdout.fd } : {}),
    }),
  )
  const json = { ...archiveJson(done), archive_bytes: done.archiveBytes, archive_sha256: done.archiveSha256 }
  const text = (): string =>
    facts({ ...archiveFacts(done), size: showBytes(done.archiveBytes), sha256: done.archiveSha256 })
  // The standard output is the archive.
  if (isStream) output.note(text())
  else output.result({ file: resolve(file), ...json }, text)
}

function addVerify(backup: Command): void {
  const command = backup
    .command('verify <file>')
    .description('check a backup as a whole; needs no platform')
    .addHelpText(
      'after',
      '\nIt also says which keys it needs that are not at hand.\n\nExample:\n  wrenn backup verify wrenn.tar.gz',
    )
  withDir(withJson(command)).action(async (file: string, options: CommonOptions) => {
    const { config, output } = contextOf({ ...backup.opts<CommonOptions>(), ...options })
    const args = ['verify-backup', resolve(file)]
    const layout = layoutOf(config.dir)
    const verified = await withProgress(output, 'checking the backup', (onProgress) =>
      askControlPlane({ args, config, layout, onProgress, schema: verifiedSchema }),
    )
    const { missingKeys } = verified
    if (missingKeys.length > 0) output.warn(missingKeysText(missingKeys))
    output.result({ ...archiveJson(verified), missing_keys: missingKeys }, () => facts(archiveFacts(verified)))
  })
}

/** Runs something that tells how far it is. */
export async function withProgress<T>(
  output: Output,
  first: string,
  task: (onProgress: (progress: ServiceProgress) => void) => Promise<T>,
): Promise<T> {
  const progress = output.spinner(first)
  try {
    return await task(({ step, detail, fraction = 0 }) =>
      progress.update(`${step} ${detail} (${Math.floor(fraction * 100)} %)`),
    )
  } finally {
    progress.done()
  }
}

/** What it means that keys of a backup are not at hand. */
export function missingKeysText(ids: readonly string[]): string {
  return `secrets in it were encrypted by ${ids.join(', ')}, which is not at hand: second factors, channels, logins at registries, rules of capsules and the authority of hosts need it`
}

/** An archive as `--json` has it. */
export function archiveJson(archive: z.output<typeof archiveSchema>) {
  const { takenAt, version, serverVersion, migration, keyIds, tables, rows, bytes } = archive
  return {
    ...{ taken_at: takenAt, version, server_version: serverVersion, migration, key_ids: keyIds },
    ...{ tables, rows, bytes },
  }
}

/** An archive for people. */
export function archiveFacts({
  takenAt,
  version,
  migration,
  keyIds,
  tables,
  rows,
  bytes,
}: z.output<typeof archiveSchema>) {
  return {
    taken: takenAt,
    'of Wrenn': `${version}, migration ${migration}`,
    content: `${rows} rows of ${tables} tables, ${showBytes(bytes)}`,
    'needs key': keyIds.join(', '),
  }
}
