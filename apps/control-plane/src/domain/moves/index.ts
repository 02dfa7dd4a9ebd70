export { Drainer } from './drainer.js'
export { Drains } from './drains.js'
export { moveExecutor } from './execute-move.js'
export { Moves } from './moves.js'
