export type { Admission } from './admission.js'
export { HotPool } from './hot-pool.js'
export { Renewal } from './renewal.js'
export { isCurrent, type Shape, type ShapeSnapshot, ShapeStore } from './shapes.js'
