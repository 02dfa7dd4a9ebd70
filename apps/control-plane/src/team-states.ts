import { type ObjectStoreConfig, SharedStore, StateStore } from '@wrenn/object-store'
import type { OpenTeamStates } from './domain/stored/index.js'

/** What teams have in the object store of the configuration; `undefined` where it names none. */
export function teamStatesOf(config: ObjectStoreConfig | undefined): OpenTeamStates | undefined {
  if (config === undefined) return undefined
  const shared = new SharedStore(config)
  return async (team) => new StateStore(await shared.open(), team)
}
