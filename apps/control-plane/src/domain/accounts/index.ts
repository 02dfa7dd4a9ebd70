export { ApiKeys, ensureFirstKey } from './api-keys.js'
