export { AccessLog, type RecordAccess } from './access-log.js'
export { Audit } from './audit.js'
export { AuditChains } from './chain.js'
export { type BrokenChain, verifyChains } from './verify-chains.js'
