import { existsSync } from 'node:fs'
import { AppError, UndoStack } from '@wrenn/base'
import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { table } from '../output.js'
import { startDatabase } from '../up/database.js'
import { layoutOf } from '../up/layout.js'
import { claimDirectory } from '../up/record.js'
import { requireRoot } from '../up/requirements.js'
import { askControlPlane } from '../up/service-command.js'

const help = `
A newer version migrates the database when it starts. Before an older one is started again, migrations that it does not know must
be reverted: its own \`wrenn db status\` of before tells the last one that it knew. Make a \`wrenn backup\` first: what the reverted
ones had added is gone afterwards.

Examples:
  sudo wrenn db status
  sudo wrenn down && sudo wrenn db downgrade --to 0018-step-results --yes`

const statusSchema = z.looseObject({
  migrations: z.array(z.looseObject({ name: z.string(), appliedAt: z.string().optional() })),
})
const revertedSchema = z.looseObject({ reverted: z.array(z.string()) })

/** `wrenn db`: the schema of the platform's database, on its machine. */
export function addDb(program: Command): void {
  const db = program.command('db').description("the schema of the platform's database, on its machine")
  db.addHelpText('after', help)
  addStatus(db)
  addDowngrade(db)
}

function addStatus(db: Command): void {
  const command = db.command('status').description('list the migrations; the platform must be running')
  withDir(withJson(command)).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    requireRoot()
    const args = ['migrations']
    const { migrations } = await askControlPlane({ args, config, layout: layoutOf(config.dir), schema: statusSchema })
    const json = migrations.map(({ name, appliedAt }) => ({ name, applied_at: appliedAt ?? null }))
    output.result(json, () =>
      table(
        ['MIGRATION', 'APPLIED'],
        migrations.map(({ name, appliedAt }) => [name, appliedAt ?? 'not yet']),
      ),
    )
  })
}

interface DowngradeOptions extends CommonOptions {
  readonly to: string
  readonly yes?: boolean
}

function addDowngrade(db: Command): void {
  const command = db
    .command('downgrade')
    .description('revert migrations, for an older version; no platform may be running')
    .requiredOption('--to <migration>', 'the last one that stays')
    .option('--yes', 'what the reverted ones had added is lost')
  withDir(withJson(command)).action(async ({ to, yes, ...options }: DowngradeOptions) => {
    const { config, output } = contextOf(options)
    requireRoot()
    if (yes !== true) {
      throw new AppError('invalid_request', 'What later migrations have added is lost; say --yes when there is a copy.')
    }
    const layout = layoutOf(config.dir)
    await using undo = new UndoStack()
    if (config.databaseUrl === undefined) {
      if (!existsSync(layout.postgresDir)) throw new AppError('not_found', `There is no platform in ${layout.dir}.`)
      const claim = await claimDirectory(layout)
      await undo.defer(() => claim[Symbol.asyncDispose]())
      const server = await startDatabase(layout, config)
      await undo.defer(() => server.stop())
    }
    const args = ['migrate-down', to]
    const { reverted } = await askControlPlane({ args, config, layout, schema: revertedSchema })
    output.result({ reverted: reverted }, () =>
      reverted.length === 0 ? `${to} is the last one; nothing was reverted.` : reverted.join('\n'),
    )
  })
}
