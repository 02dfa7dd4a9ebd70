export { type Credentials, createAuthority, isSoonOver, issueCertificate } from './authority.js'
