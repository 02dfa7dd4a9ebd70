export { checkEgress, checkLimits } from './limits.js'
export { isPoolFull, readQuota, reserve, reserveSpace } from './quotas.js'
