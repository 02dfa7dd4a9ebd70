import type { ChannelProvider } from '@wrenn/protocol'
import type { Provider } from '../provider.js'
import { discord } from './discord.js'
import { googleChat } from './google-chat.js'
import { matrix } from './matrix.js'
import { slack } from './slack.js'
import { teams } from './teams.js'
import { telegram } from './telegram.js'
import { webhook } from './webhook.js'

export { rotateSecret } from './webhook.js'

/** All that can be sent to. */
export const providers: Readonly<Record<ChannelProvider, Provider>> = {
  webhook,
  discord,
  slack,
  teams,
  google_chat: googleChat,
  telegram,
  matrix,
}
