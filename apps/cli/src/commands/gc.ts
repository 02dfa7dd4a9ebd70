import type { Command } from 'commander'
import { z } from 'zod'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { table } from '../output.js'
import { showBytes } from '../units.js'
import { layoutOf } from '../up/layout.js'
import { requireRoot } from '../up/requirements.js'
import { askHostAgent } from '../up/service-command.js'

const collectedSchema = z.looseObject({
  items: z.array(z.looseObject({ kind: z.string(), name: z.string(), bytes: z.number() })),
  freedBytes: z.number(),
})
type Collected = z.infer<typeof collectedSchema>

const help = `
The host agent does this by itself when it starts. It needs a running platform, and root; what was touched in the last
10 minutes stays.

Examples:
  sudo wrenn gc --dry-run
  sudo wrenn gc --json`

/** `wrenn gc`: asks the running host agent through its own program. Needs root, as its socket does. */
export function addGc(program: Command): void {
  const command = program
    .command('gc')
    .description('remove files of this machine that no capsule, checkpoint or snapshot owns')
    .option('--dry-run', 'only say what would be removed')
    .addHelpText('after', help)
  withDir(withJson(command)).action(async (options: CommonOptions & { dryRun?: boolean }) => {
    const { config, output } = contextOf(options)
    requireRoot()
    const isDryRun = options.dryRun ?? false
    const progress = output.spinner('looking for garbage')
    try {
      const collected = await askHostAgent({
        args: ['gc', ...(isDryRun ? ['--dry-run'] : [])],
        config,
        dir: layoutOf(config.dir).dir,
        schema: collectedSchema,
      })
      progress.done()
      const { items, freedBytes } = collected
      const json = { dry_run: isDryRun, items, freed_bytes: freedBytes }
      output.result(json, () => showCollected(collected, isDryRun))
    } finally {
      progress.done()
    }
  })
}

function showCollected({ items, freedBytes }: Collected, isDryRun: boolean): string {
  if (items.length === 0) return 'There is no garbage.'
  const rows = items.map(({ kind, name, bytes }) => [kind.replaceAll('_', ' '), showBytes(bytes), name])
  const total = `${isDryRun ? 'Would free' : 'Freed'} ${showBytes(freedBytes)}.`
  return `${table(['KIND', 'SIZE', 'NAME'], rows)}\n${total}`
}
