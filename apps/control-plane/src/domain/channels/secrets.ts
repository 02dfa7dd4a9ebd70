import { z } from 'zod'
import type { ChannelConfig } from '../../notify/index.js'
import type { ChannelRow } from '../../store/schema.js'
import type { Keyring } from '../secrets/index.js'

const configSchema = z.record(z.string(), z.string())

/** What a channel is addressed with, as it is kept: all of it may be secret. */
export function sealConfig(keyring: Keyring, id: string, config: ChannelConfig): string {
  return keyring.seal(JSON.stringify(config), contextOf(id))
}

/** @throws AppError `not_supported` when the key that it was encrypted by is not there */
export function openConfig(
  keyring: Keyring,
  { id, config }: Pick<ChannelRow, 'id' | 'config'>,
): { readonly config: ChannelConfig; readonly isCurrent: boolean } {
  const { text, isCurrent } = keyring.open(config, contextOf(id))
  return { config: configSchema.parse(JSON.parse(text)), isCurrent }
}

function contextOf(id: string): string {
  return `channel:${id}`
}
