export { CallMeter } from './call-meter.js'
export { checkedEgress, checkLimits } from './limits.js'
export { isPoolFull, readQuota, reserve, reserveSpace } from './quotas.js'
