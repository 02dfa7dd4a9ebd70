import type { ChannelInfo } from '@wrenn/sdk'

/** How a channel does, in a word, and its colour. */
export interface ChannelState {
  readonly word: 'on' | 'paused' | 'switched off' | 'trying again'
  readonly tone: string
}

/** One that is off with a problem was switched off by the platform, because its target is gone, or by people because of it. */
export function stateOf({
  isEnabled,
  problem,
  retryAt,
}: Pick<ChannelInfo, 'isEnabled' | 'problem' | 'retryAt'>): ChannelState {
  if (!isEnabled && problem !== undefined) return { word: 'switched off', tone: 'text-red' }
  if (!isEnabled) return { word: 'paused', tone: 'text-text-4' }
  if (retryAt !== undefined) return { word: 'trying again', tone: 'text-amber' }
  return { word: 'on', tone: 'text-sage' }
}
