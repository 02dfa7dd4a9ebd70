export { Loaders } from './loaders.js'
export { LOADER_FILES } from './order.js'
