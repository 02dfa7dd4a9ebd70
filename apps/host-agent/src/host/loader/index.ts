export { Loaders, obstacleToLoading } from './loaders.js'
export { LOADER_FILES } from './order.js'
