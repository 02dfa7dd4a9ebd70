export { findKeys, readKeyFile } from './key-file.js'
export { Keyring, parseKey } from './keyring.js'
