export {
  type DataRange,
  dataRanges,
  type Extent,
  type ExtentOptions,
  extentsOf,
  isUnsupported,
} from './extent-map.js'
export { type PoolBytes, poolBytes } from './pool-bytes.js'
