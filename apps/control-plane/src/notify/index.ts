export { type Allowed, parseNetworks } from './address-rule.js'
export type { ChannelConfig, Message } from './provider.js'
export { providers, rotateSecret } from './providers/index.js'
export { Sender, type SenderOptions, type Sent } from './sender.js'
