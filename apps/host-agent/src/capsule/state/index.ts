export type { FlushOptions } from './flusher.js'
export { layersOf, PORTABLE, readPortable, writePortable } from './portable.js'
export { DURABLE, type Durable, hardwareOf, layersOfStates, type StateManifest, type StateStore } from './states.js'
export type { LazyVault, OpenVault, StoreKey, Vault } from './vault.js'
