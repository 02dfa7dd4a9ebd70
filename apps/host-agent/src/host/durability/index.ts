export { type DigestOptions, sparseDigest } from './digest.js'
export { type Checksums, type FileChecksum, makeDurable, requireDurable, verifyDurable } from './durable.js'
export { type SyncOptions, syncAll, syncData } from './sync.js'
