export { type Credentials, createAuthority, isSoonOver, issueCertificate, issueHostCertificate } from './authority.js'
