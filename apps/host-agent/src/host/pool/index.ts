export {
  type CloneOptions,
  canClone,
  closePool,
  fileSystemOf,
  openPool,
  type Pool,
  type PoolOptions,
  type PoolUsage,
} from './pool.js'
