export { EventFeed } from './event-feed.js'
export { EventSweeper } from './event-sweeper.js'
export type { Follower } from './follower.js'
