/**
 * Answers of the platform as the SDK gives them, for a page that must show something before all of the SDK has come: it asks by itself, and
 * gives what the JSON of the answer was.
 */
export { capsuleInfo, meInfo } from './convert.js'
export { listedTeamInfo } from './teams.js'
