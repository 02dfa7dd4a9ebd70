import { buildStates } from './build-states.js'
import { eventPermissions } from './event-types.js'
import { capsuleStates } from './states.js'

/** One part of what a target is addressed with. */
export interface ChannelField {
  /** In `config`. */
  readonly name: string
  /** What people call it. */
  readonly label: string
  /** Where it is found, or what it looks like. */
  readonly hint: string
  /** Without it nothing can be sent. */
  readonly isNeeded: boolean
  /** `secret`: nobody is to read it on a screen. All of `config` is kept as a secret, whatever this says. */
  readonly kind: 'url' | 'text' | 'secret'
}

/** A kind of place that events are sent to. */
export interface ChannelTarget {
  /** What people call it. */
  readonly label: string
  /** In the order in which they are asked for. */
  readonly fields: readonly ChannelField[]
}

/** Those that are addressed by a URL alone. */
function byUrl(label: string, hint: string): ChannelTarget {
  return { label, fields: [{ name: 'webhook_url', label: 'Webhook URL', hint, isNeeded: true, kind: 'url' }] }
}

/**
 * All that can be sent to, and what it is addressed with: the only place that says it. Who checks a value is the control plane, which knows the form of
 * each. `teams`: a workflow of Microsoft Teams.
 */
export const channelTargets = {
  webhook: {
    label: 'Webhook',
    fields: [
      { name: 'url', label: 'URL', hint: 'Of a program of yours.', isNeeded: true, kind: 'url' },
      {
        name: 'secret',
        label: 'Secret',
        hint: 'Requests are signed with it: whsec_ and base64 of 24 to 64 bytes. Empty: one is made.',
        isNeeded: false,
        kind: 'secret',
      },
    ],
  },
  discord: byUrl('Discord', 'Settings of a channel, Integrations, Webhooks.'),
  slack: byUrl('Slack', 'Of an app with Incoming Webhooks.'),
  teams: byUrl('Microsoft Teams', 'Of a workflow with the trigger “When a Teams webhook request is received”.'),
  google_chat: byUrl('Google Chat', 'A space, Apps & integrations, Webhooks.'),
  telegram: {
    label: 'Telegram',
    fields: [
      { name: 'bot_token', label: 'Token of the bot', hint: '@BotFather gives it.', isNeeded: true, kind: 'secret' },
      { name: 'chat_id', label: 'Chat', hint: 'Its number, or @name of a channel.', isNeeded: true, kind: 'text' },
      {
        name: 'api_url',
        label: 'Server of the Bot API',
        hint: 'Only where you have one of your own.',
        isNeeded: false,
        kind: 'url',
      },
    ],
  },
  matrix: {
    label: 'Matrix',
    fields: [
      { name: 'homeserver_url', label: 'Homeserver', hint: 'Such as https://matrix.org.', isNeeded: true, kind: 'url' },
      {
        name: 'access_token',
        label: 'Access token',
        hint: 'Of an account of its own that is in the room.',
        isNeeded: true,
        kind: 'secret',
      },
      {
        name: 'room_id',
        label: 'Room',
        hint: 'Its internal id, which begins with !. The room is not encrypted.',
        isNeeded: true,
        kind: 'text',
      },
    ],
  },
} as const satisfies Readonly<Record<string, ChannelTarget>>

/** Who takes what a channel sends. */
export type ChannelProvider = keyof typeof channelTargets
/** All of them. */
export const channelProviders = Object.keys(channelTargets) as ChannelProvider[] // a table has no other keys

const types = Object.keys(eventPermissions)
const groups = [...new Set(types.map((type) => `${type.split('.', 1)[0]}.*`))]

/** What a channel may be told of: events by type, `capsule.state` and `build.state` by the state too, all of a group, or all that is of the team: `*`. */
export const channelFilters: readonly string[] = [
  ...types,
  ...capsuleStates.map((state) => `capsule.state:${state}`),
  ...buildStates.map((state) => `build.state:${state}`),
  ...groups,
  '*',
]
