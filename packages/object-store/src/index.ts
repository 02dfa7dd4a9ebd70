export { type ObjectStoreConfig, type ObjectStoreValues, objectStoreConfig, objectStoreFields } from './config.js'
export { listDamage } from './damage-marks.js'
export type {
  GetOptions,
  ObjectStore,
  StoreAbilities,
  StoredObject,
  StoreOptions,
  StoreTimeouts,
} from './object-store.js'
export { attachObjectStore, openObjectStore } from './open.js'
export { Pace } from './pace.js'
export type {
  CollectOptions,
  CollectResult,
  DataRange,
  LoadOptions,
  LoadResult,
  SaveOptions,
  SaveResult,
  StateFile,
  TransferOptions,
  TransferProgress,
} from './saved-state.js'
export { SharedStore } from './shared-store.js'
export type { StoredTeam } from './state-keys.js'
export { StateStore, type StateStoreOptions } from './state-store.js'
export { type StoredChunk, StoredFile } from './stored-file.js'
