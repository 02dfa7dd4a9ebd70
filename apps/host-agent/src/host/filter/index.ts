export { requireCertificates } from './ca-file.js'
export { EgressFilter } from './egress-filter.js'
export type { FilterProgram } from './program.js'
