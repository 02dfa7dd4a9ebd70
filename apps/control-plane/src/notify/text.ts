import type { Message } from './provider.js'

const verbs: Readonly<Record<string, string>> = {
  created: 'was made',
  updated: 'was changed',
  removed: 'is gone',
  revoked: 'was revoked',
  joined: 'joined the team',
  left: 'left the team',
  role: 'has another role',
}
const nouns: Readonly<Record<string, string>> = {
  api_key: 'API key',
  template: 'Template',
  build: 'The build of template',
  member: 'Member',
}
const MAX_NAME = 200
const GIB = 2 ** 30

/** What a host has, or has not. */
const ofHosts: Readonly<Record<string, string>> = {
  down: 'does not answer',
  up: 'answers again',
  eased: 'has enough memory and room again',
}
/** What is limited, as the API calls it and as people do, with its unit. */
const quotas: Readonly<Record<string, (used: number) => string>> = {
  running_capsules: (count) => `${count} running capsules`,
  vcpus: (count) => `${count} vCPUs`,
  memory_mb: (count) => `${count} MiB of memory`,
  capsules: (count) => `${count} capsules`,
  pool_bytes: (count) => `${(count / GIB).toFixed(count < GIB ? 3 : 1)} GiB of files`,
}

/** A message as people read it in a chat, before its marks are made harmless. */
export interface ChatText {
  readonly summary: string
  readonly lines: readonly (readonly [name: string, value: string])[]
}

/** One sentence, and what it is about. */
export function chatText({ event, timestamp, team_id, resource, data }: Message): ChatText {
  const name = typeof data.name === 'string' && data.name !== '' ? data.name.slice(0, MAX_NAME) : undefined
  return {
    summary: summaryOf(event, name ?? resource.id, data),
    lines: [
      ['Event', event],
      ['Resource', name === undefined ? resource.id : `${name} (${resource.id})`],
      ['Team', team_id],
      ['Time', timestamp],
    ],
  }
}

function summaryOf(event: string, name: string, data: Message['data']): string {
  if (event === 'channel.test') return 'This is a test of Wrenn: the channel works.'
  const [noun = '', verb = ''] = event.split('.')
  if (noun === 'quota') return quotaText(verb, name, data)
  if (noun === 'host') return `Host ${name} ${ofHosts[verb] ?? `runs short of ${shortOf(data)}`}.`
  const what = nouns[noun] ?? noun.charAt(0).toUpperCase() + noun.slice(1)
  if (noun === 'build' && data.state === 'error') return `${what} ${name} has failed.`
  if (verb === 'state') return `${what} ${name} is ${String(data.state)}.`
  return `${what} ${name} ${verbs[verb] ?? verb}.`
}

function quotaText(verb: string, quota: string, { used, limit }: Message['data']): string {
  const amount = quotas[quota] ?? ((count: number) => `${count} of ${quota}`)
  const max = amount(Number(limit))
  return verb === 'reached'
    ? `The team has reached its limit of ${max}.`
    : `The team uses ${amount(Number(used))}; it may use ${max}.`
}

function shortOf({ memory_short: memory, pool_short: pool }: Message['data']): string {
  return [...(memory === true ? ['memory'] : []), ...(pool === true ? ['room in its pool'] : [])].join(' and ')
}

/** All lines as one text, each value made harmless by `harmless`. */
export function asLines({ summary, lines }: ChatText, harmless: (text: string) => string): string {
  return [harmless(summary), ...lines.map(([name, value]) => `${name}: ${harmless(value)}`)].join('\n')
}

/** For HTML and what is made like it. */
export function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
