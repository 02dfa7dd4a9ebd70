export { findKeys, readKeyFile } from './key-file.js'
export { Keyring, parseKey } from './keyring.js'
export { openSecrets, type SecretInfo, TeamSecrets } from './team-secrets.js'
