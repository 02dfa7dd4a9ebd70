import type { Command } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { listTemplates, templateJson } from '../template-view.js'
import { type WaitOptions, waiting, withWait } from '../waiting.js'

const makeHelp = `
Memory and processes are in it: capsules start from it warm. The capsule itself stays as it was.

Examples:
  name=$(wrenn capsule snapshot cl-… my-tools)
  wrenn capsule create --template "$name"
  wrenn capsule snapshot cl-… my-tools --checkpoint before-upgrade`

type SnapshotCommandOptions = CommonOptions & WaitOptions & { readonly checkpoint?: string }

/** `wrenn capsule snapshot`. */
export function addMakeSnapshot(capsule: Command): void {
  const command = capsule
    .command('snapshot <capsule> [name]')
    .description('make a template of a capsule and print its name')
    .option('--checkpoint <checkpoint>', 'as it was there, by name or id (default: as it is)')
    .addHelpText('after', makeHelp)
  withWait(withJson(command)).action(async (id: string, name: string | undefined, options: SnapshotCommandOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const { checkpoint } = options
    const point = checkpoint === undefined ? {} : { checkpoint }
    const made = await waiting(context, 'making a snapshot', options, (wait) =>
      found.snapshot(name, { ...wait, ...point }),
    )
    context.output.result(templateJson(made), () => made.name)
  })
}

const help = `
Examples:
  wrenn capsule snapshot cl-… my-tools
  wrenn snapshot ls
  wrenn capsule create --template my-tools
  wrenn snapshot rm my-tools`

/** `wrenn snapshot`. */
export function addSnapshot(program: Command): void {
  const snapshot = program
    .command('snapshot')
    .description('templates made of capsules; `wrenn capsule snapshot` makes one')
    .addHelpText('after', help)
  const list = snapshot
    .command('ls')
    .description('list snapshots')
    .option('-a, --all', 'also the templates that images bring')
    .addHelpText('after', '\nExample:\n  wrenn snapshot ls --all')
  withJson(list).action(async (options: CommonOptions & { all?: boolean }) => {
    await listTemplates(contextOf(options), options)
  })
  const remove = snapshot
    .command('rm <name...>')
    .description('delete snapshots; capsules that were started from them go on')
    .addHelpText('after', '\nExample:\n  wrenn snapshot rm my-tools')
  withJson(remove).action(async (names: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { templates } = await connect(config)
    for (const name of names) await templates.delete(name)
    output.result({ deleted: names }, () => names.join('\n'))
  })
}
