export {
  type DataRange,
  dataRanges,
  type Extent,
  type ExtentOptions,
  extentsOf,
  isUnsupported,
} from './extent-map.js'
export { type PoolExtents, poolExtents } from './pool-extents.js'
