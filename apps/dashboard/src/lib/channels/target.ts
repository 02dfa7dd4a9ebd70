import { type ChannelField, type ChannelProvider, channelTargets } from '@wrenn/sdk'

/** All kinds of targets, in the order in which they are offered. */
export const providers = Object.keys(channelTargets) as ChannelProvider[] // a table has no other keys

/** What people call a kind of target; a newer server may have others. */
export function labelOf(provider: string): string {
  return isProvider(provider) ? channelTargets[provider].label : provider
}

/** What it is addressed with. */
export function fieldsOf(provider: string): readonly ChannelField[] {
  return isProvider(provider) ? channelTargets[provider].fields : []
}

/** Whether this page knows it. */
export function isProvider(provider: string): provider is ChannelProvider {
  return providers.some((known) => known === provider)
}

/** Of what was typed, what belongs to this kind of target and is not empty. */
export function configOf(provider: string, typed: Readonly<Record<string, string>>): Record<string, string> {
  const given = fieldsOf(provider).map(({ name }) => [name, typed[name]?.trim() ?? ''] as const)
  return Object.fromEntries(given.filter(([, value]) => value !== ''))
}
