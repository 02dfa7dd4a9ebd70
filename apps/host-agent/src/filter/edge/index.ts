export { Edge } from './edge.js'
export { type EdgeMatch, EdgeRules } from './edge-rules.js'
export type { EdgeTimes } from './session.js'
