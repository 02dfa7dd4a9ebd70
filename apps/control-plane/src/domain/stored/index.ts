export { LeftoverRounds } from './leftover-rounds.js'
export { freeLeftovers, hostOfRow, tryToFree } from './leftovers.js'
export { storeKeyOf, TRANSFER_TIMEOUT_MS } from './store-key.js'
export { type OpenTeamStates, StoredStates, type TeamStates } from './stored-states.js'
