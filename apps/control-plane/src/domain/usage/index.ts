export { LagoSender } from './lago-sender.js'
export { UsageRollUp } from './roll-up.js'
export { TrafficCollector } from './traffic-collector.js'
export { Usage } from './usage.js'
