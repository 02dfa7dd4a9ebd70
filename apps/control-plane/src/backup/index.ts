export { runBackup, runRestore, runVerify } from './command-line.js'
export type { OnProgress } from './format.js'
