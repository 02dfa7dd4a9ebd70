import Boxes from '@lucide/svelte/icons/boxes'
import Gauge from '@lucide/svelte/icons/gauge'
import KeyRound from '@lucide/svelte/icons/key-round'
import Layers from '@lucide/svelte/icons/layers'
import Megaphone from '@lucide/svelte/icons/megaphone'
import ScrollText from '@lucide/svelte/icons/scroll-text'
import ServerCog from '@lucide/svelte/icons/server-cog'
import Settings from '@lucide/svelte/icons/settings'
import Users from '@lucide/svelte/icons/users'

/** A page of the sidebar and of the command palette. */
export interface Section {
  readonly label: string
  readonly path: string
  readonly icon: typeof Boxes
  /** Who has it not is not led there. */
  readonly permission: string
}

export const sections: readonly Section[] = [
  { label: 'Capsules', path: '/dashboard/capsules', icon: Boxes, permission: 'capsules.read' },
  { label: 'Templates', path: '/dashboard/templates', icon: Layers, permission: 'templates.read' },
  { label: 'API keys', path: '/dashboard/keys', icon: KeyRound, permission: 'keys.read' },
  { label: 'Channels', path: '/dashboard/channels', icon: Megaphone, permission: 'channels.read' },
  { label: 'Team', path: '/dashboard/team', icon: Users, permission: 'team.read' },
  { label: 'Usage', path: '/dashboard/usage', icon: Gauge, permission: 'quota.read' },
  { label: 'Audit', path: '/dashboard/audit', icon: ScrollText, permission: 'audit.read' },
  { label: 'Platform', path: '/dashboard/admin', icon: ServerCog, permission: 'users.read' },
  { label: 'Settings', path: '/dashboard/settings', icon: Settings, permission: 'account.use' },
]
