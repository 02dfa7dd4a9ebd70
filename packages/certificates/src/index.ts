import 'reflect-metadata' // before the rest: classes of x509 register themselves with it

export { createAuthority, isSoonOver, issueCertificate, issueHostCertificate } from './authority.js'
export {
  type CertificateRequest,
  CertificateRequestError,
  CONTROL_PLANE_NAME,
  createCertificateRequest,
  createHostAuthority,
  createRevocationList,
  hostName,
  type IssuedCertificate,
  isDueForRenewal,
  issueToControlPlane,
  issueToHost,
  type Revocation,
  readCertificateRequest,
} from './host-certificates.js'
export type { Credentials } from './signing.js'
