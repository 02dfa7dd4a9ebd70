export { AccessLog, type RecordAccess } from './access-log.js'
export { Audit } from './audit.js'
export { AuditChains } from './chain.js'
