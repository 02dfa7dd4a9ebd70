export { moveExecutor } from './execute-move.js'
export { Moves } from './moves.js'
