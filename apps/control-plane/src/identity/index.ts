import { GithubProvider } from './github.js'
import { OidcProvider } from './oidc.js'
import type { IdentityProvider } from './provider.js'
import type { ProviderConfig } from './settings.js'

export { type Binding, type Identity, IdentityFailure, type IdentityProvider } from './provider.js'
export { type ProviderConfig, readProviders } from './settings.js'

/** Asks none of them anything: one that is away keeps nothing from starting. */
export function createProviders(configs: readonly ProviderConfig[]): readonly IdentityProvider[] {
  return configs.map((config) => (config.kind === 'github' ? new GithubProvider(config) : new OidcProvider(config)))
}
