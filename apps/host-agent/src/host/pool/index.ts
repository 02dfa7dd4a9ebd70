export {
  type CloneOptions,
  canClone,
  closePool,
  fileSystemOf,
  openPool,
  type Pool,
  type PoolOptions,
  type PoolUsage,
  withOpenPool,
} from './pool.js'
