export { ApiKeys, ensureFirstKey } from './api-keys.js'
export { need, type Principal } from './principal.js'
