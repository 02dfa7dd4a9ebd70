import { channelFilters, isOfPlatform } from '@wrenn/sdk'

/** Everything that happens in the team. */
export const ALL = '*'

/** What can be told of one kind of thing. */
export interface FilterGroup {
  /** Such as `capsule`. */
  readonly name: string
  /** `capsule.*`. */
  readonly all: string
  /** Types of events, each with the states that it can be narrowed to. */
  readonly types: readonly { readonly type: string; readonly states: readonly string[] }[]
}

/** In the order in which they are offered. */
export const filterGroups: readonly FilterGroup[] = channelFilters
  .filter((filter) => filter.endsWith('.*'))
  .map((all) => {
    const prefix = all.slice(0, -1)
    const types = channelFilters.filter(
      (filter) => filter !== all && filter.startsWith(prefix) && !filter.includes(':'),
    )
    const states = (type: string) => channelFilters.filter((filter) => filter.startsWith(`${type}:`))
    return { name: prefix.slice(0, -1), all, types: types.map((type) => ({ type, states: states(type) })) }
  })

/** Whether another one that is chosen has all that this one has. */
export function isCovered(filter: string, chosen: readonly string[]): boolean {
  const [type = ''] = filter.split(':', 1)
  const [name = ''] = type.split('.', 1)
  const wider = [...(isOfPlatform(filter) ? [] : [ALL]), `${name}.*`, type]
  return wider.some((each) => each !== filter && chosen.includes(each))
}

/** Without those that say nothing more. */
export function pruned(chosen: readonly string[]): string[] {
  return chosen.filter((filter) => !isCovered(filter, chosen))
}
