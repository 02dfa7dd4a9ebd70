export { type DigestOptions, sparseDigest } from './digest.js'
export { type Checksums, type FileChecksum, makeDurable, verifyDurable } from './durable.js'
export { type SyncOptions, syncData } from './sync.js'
