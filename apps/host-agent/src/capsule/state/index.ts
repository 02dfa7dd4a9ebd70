export type { FlushOptions } from './flusher.js'
export { layersOf, PORTABLE, readPortable, writePortable } from './portable.js'
export { type Durable, hardwareOf, layersOfStates, type StateManifest, type StateStore } from './states.js'
export type { OpenVault, StoreKey, Vault } from './vault.js'
