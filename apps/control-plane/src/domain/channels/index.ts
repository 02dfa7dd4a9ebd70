export { Channels } from './channels.js'
export { ChannelDispatcher } from './dispatcher.js'
export { ChannelLog } from './log.js'
export { ChannelSweeper } from './sweeper.js'
