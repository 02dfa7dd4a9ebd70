export { LagoSender } from './lago-sender.js'
export { UsageRollUp } from './roll-up.js'
export { Usage } from './usage.js'
