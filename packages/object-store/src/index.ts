export { type ObjectStoreConfig, type ObjectStoreValues, objectStoreConfig, objectStoreFields } from './config.js'
export type {
  GetOptions,
  ObjectStore,
  StoreAbilities,
  StoredObject,
  StoreOptions,
  StoreTimeouts,
} from './object-store.js'
export { openObjectStore } from './open.js'
export type {
  CollectResult,
  LoadResult,
  SaveResult,
  StateFile,
  StoredTeam,
  TransferOptions,
  TransferProgress,
} from './saved-state.js'
