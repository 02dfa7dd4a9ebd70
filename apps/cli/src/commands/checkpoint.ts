import type { CheckpointInfo, FileChange } from '@wrenn/sdk'
import type { Command } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { showChange } from '../file-change.js'
import { treeOf } from '../lifecycle-words.js'
import { type Output, table } from '../output.js'
import { showMs, showOwnBytes, showSpan } from '../units.js'
import { type WaitOptions, waiting, withWait } from '../waiting.js'
import { type FromOptions, fromOf, showMoved, withFrom } from './lifecycle.js'

const help = `
Examples:
  wrenn capsule checkpoint create cl-… before-upgrade
  wrenn capsule checkpoint ls cl-…
  wrenn capsule rollback cl-… before-upgrade
  wrenn capsule checkpoint rm cl-… before-upgrade`

/** `wrenn capsule checkpoint create|ls|rm`. */
export function addCheckpoint(capsule: Command): void {
  const checkpoint = capsule
    .command('checkpoint')
    .description('points in time to which a capsule can go back: memory, processes and files')
    .addHelpText('after', help)
  addCreate(checkpoint)
  addList(checkpoint)
  addRemove(checkpoint)
}

function addCreate(checkpoint: Command): void {
  const command = checkpoint
    .command('create <capsule> [name]')
    .description('make one and print its id; the capsule runs on (default name: checkpoint-1, -2, …)')
    .addHelpText('after', '\nExample:\n  wrenn capsule checkpoint create cl-… before-upgrade')
  withWait(withJson(command)).action(
    async (id: string, name: string | undefined, options: CommonOptions & WaitOptions) => {
      const context = contextOf(options)
      const found = await findCapsule(context, id)
      const made = await waiting(context, 'making a checkpoint', options, (wait) => found.checkpoint(name, wait))
      context.output.result(toJson(made), () => made.id)
      const window =
        made.pauseWindowMs === undefined ? '' : `; the capsule stood still for ${showMs(made.pauseWindowMs)}`
      context.output.note(`Checkpoint ${made.name}${window}.`)
    },
  )
}

function addList(checkpoint: Command): void {
  const command = checkpoint
    .command('ls <capsule>')
    .description('show them as a tree; * marks the one that the capsule stands on')
    .addHelpText('after', '\nExample:\n  wrenn capsule checkpoint ls cl-…')
  withJson(command).action(async (id: string, options: CommonOptions) => {
    const context = contextOf(options)
    const found = await (await findCapsule(context, id)).checkpoints()
    context.output.result(found.map(toJson), () => showTree(found, context.output, new Date()))
  })
}

function addRemove(checkpoint: Command): void {
  const command = checkpoint
    .command('rm <capsule> <checkpoint...>')
    .description('delete checkpoints, by name or id')
    .addHelpText('after', '\nExample:\n  wrenn capsule checkpoint rm cl-… before-upgrade')
  withJson(command).action(async (id: string, names: string[], options: CommonOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    for (const name of names) await found.deleteCheckpoint(name)
    context.output.result({ deleted: names }, () => names.join('\n'))
  })
}

const rollbackHelp = `
Memory, processes and files are as they were at the checkpoint; id and URLs stay. What came after it is gone, unless
another checkpoint has it. A running capsule runs afterwards, also one whose guest had ended; a paused one stays paused.
With --from disk only the files are as they were, and no process runs: for a checkpoint whose memory cannot be loaded any more.

Examples:
  wrenn capsule rollback cl-… before-upgrade
  wrenn capsule rollback cl-… before-upgrade --from disk`

type RollbackOptions = CommonOptions & WaitOptions & FromOptions

/** `wrenn capsule rollback`: takes a checkpoint's name or id, and waits until the capsule runs there. */
export function addRollback(capsule: Command): void {
  const command = capsule
    .command('rollback <capsule> <checkpoint>')
    .description('go back to a checkpoint, by name or id')
    .addHelpText('after', rollbackHelp)
  withFrom(withWait(withJson(command))).action(async (id: string, name: string, options: RollbackOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const startedAt = performance.now()
    const info = await waiting(context, 'rolling back', options, (wait) =>
      found.rollback(name, { ...wait, ...fromOf(options) }),
    )
    showMoved(context, info, `Back at ${name} after ${showMs(performance.now() - startedAt)}`)
  })
}

const diffHelp = `
A is added, M is changed (what, in brackets), D is removed. Read from the disks; nothing is booted.

Examples:
  wrenn capsule diff cl-… before-upgrade                  against now
  wrenn capsule diff cl-… before after --path /etc`

/** `wrenn capsule diff`: prints changes as they come, page after page; with `--json` all of them as one array. */
export function addDiff(capsule: Command): void {
  const command = capsule
    .command('diff <capsule> <from> [to]')
    .description('list the files that differ between two checkpoints, or between one and now')
    .option('--path <path>', 'only below this absolute path')
    .addHelpText('after', diffHelp)
  withJson(command).action(
    async (id: string, from: string, to: string | undefined, options: CommonOptions & { path?: string }) => {
      const { output, ...context } = contextOf(options)
      const found = await findCapsule({ output, ...context }, id)
      const changes: FileChange[] = []
      for await (const change of found.diff(from, to ?? 'current', options.path ? { path: options.path } : {})) {
        if (output.json) changes.push(change)
        else output.result(undefined, () => showChange(change, output))
      }
      if (output.json) output.result({ from, to: to ?? 'current', changes: changes.map(changeToJson) }, () => '')
    },
  )
}

function changeToJson({ change, path, type, sizeBytes, what }: FileChange): object {
  return { change, path, type, size: sizeBytes, what }
}

function toJson(checkpoint: CheckpointInfo): object {
  return {
    id: checkpoint.id,
    capsule_id: checkpoint.capsuleId,
    name: checkpoint.name,
    parent_id: checkpoint.parentId,
    current: checkpoint.current,
    created_at: checkpoint.createdAt,
    size_bytes: checkpoint.sizeBytes,
    durable: checkpoint.durable,
    durable_at: checkpoint.durableAt,
    pause_window_ms: checkpoint.pauseWindowMs,
  }
}

function showTree(checkpoints: readonly CheckpointInfo[], output: Output, now: Date): string {
  const rows = treeOf(checkpoints).map(({ branch, checkpoint }) => [
    `${checkpoint.current ? '*' : ' '} ${branch}${checkpoint.name}`,
    showOwnBytes(checkpoint.sizeBytes),
    showSpan(now.getTime() - checkpoint.createdAt.getTime()),
    checkpoint.durable ? 'durable' : 'not yet durable',
    checkpoint.id,
  ])
  const [header = '', ...lines] = table(['  NAME', 'SIZE', 'AGE', 'SAVED', 'ID'], rows).split('\n')
  return [header, ...lines.map((line) => (line.startsWith('*') ? output.bold(line) : line))].join('\n')
}
