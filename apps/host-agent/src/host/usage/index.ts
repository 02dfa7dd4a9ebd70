export { type GuestProcess, type Usage, UsageReader } from './usage-reader.js'
