import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type * as sdk from '@wrenn/sdk'
import type { Platform } from './platform.js'
import { webSocketOf } from './stream.js'

export type Sdk = typeof sdk

/** Where the published form of the SDK lies. */
export function sdkEntry({ artefacts }: Pick<Platform, 'artefacts'>): string {
  return join(artefacts, 'node_modules/@wrenn/sdk/build/index.js')
}

/** The SDK as it is published, not its sources. */
export async function loadSdk(platform: Pick<Platform, 'artefacts'>): Promise<Sdk> {
  return await import(/* @vite-ignore */ pathToFileURL(sdkEntry(platform)).href)
}

export async function openClient(platform: Platform, options: sdk.WrennOptions = {}): Promise<sdk.Wrenn> {
  const { Wrenn } = await loadSdk(platform)
  // `ws` types its events more narrowly than the standard.
  const webSocket = webSocketOf(platform) as unknown as sdk.WebSocketConstructor
  return new Wrenn({ apiUrl: platform.url, apiKey: platform.apiKey, webSocket, ...options })
}
