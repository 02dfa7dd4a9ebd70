import { existsSync } from 'node:fs'
import { AppError, UndoStack } from '@wrenn/base'
import type { CliConfig } from '../config.js'
import { serviceUids, startDatabase } from './database.js'
import { DATABASE, type Layout } from './layout.js'
import { claimDirectory, findRunning } from './record.js'
import { requireRoot } from './requirements.js'
import { makeFolders } from './supervisor.js'

/** Lets a command reach the database, until disposed. Nothing is to be done for one of the operator's own. */
export async function openDatabaseFor(
  { config, layout }: { readonly config: CliConfig; readonly layout: Layout },
  use: 'also while the platform runs' | 'alone' | 'alone, made when missing',
): Promise<AsyncDisposable> {
  await using undo = new UndoStack()
  if (config.databaseUrl === undefined) {
    requireRoot()
    const isRunning = use === 'also while the platform runs' && (await findRunning(layout)) !== undefined
    if (!isRunning) await startAlone(undo, config, layout, use === 'alone, made when missing')
  }
  const held = undo.move()
  return { [Symbol.asyncDispose]: () => held[Symbol.asyncDispose]() }
}

async function startAlone(undo: UndoStack, config: CliConfig, layout: Layout, make: boolean): Promise<void> {
  if (make) await makeFolders(layout, serviceUids(config).controlPlane)
  else if (!existsSync(layout.postgresDir)) throw new AppError('not_found', `There is no platform in ${layout.dir}.`)
  const claim = await claimDirectory(layout)
  await undo.defer(() => claim[Symbol.asyncDispose]())
  const server = await startDatabase(layout, config)
  await undo.defer(() => server.stop())
  if (make) await server.createDatabase(DATABASE)
}
