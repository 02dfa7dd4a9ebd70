export { type DoctorOptions, examineHost } from './doctor.js'
export type { EngineChoice, GuestKernel, HostProgram } from './machine-checks.js'
export type { NetworkSettings } from './network-checks.js'
export type { CheckStatus, DoctorCheck, DoctorReport } from './report.js'
