export { Audit } from './audit.js'
export { AuditChains } from './chain.js'
