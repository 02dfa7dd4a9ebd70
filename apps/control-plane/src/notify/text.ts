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
const nouns: Readonly<Record<string, string>> = { api_key: 'API key', template: 'Template', member: 'Member' }
const MAX_NAME = 200

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
  const what = nouns[noun] ?? noun.charAt(0).toUpperCase() + noun.slice(1)
  if (verb === 'state') return `${what} ${name} is ${String(data.state)}.`
  return `${what} ${name} ${verbs[verb] ?? verb}.`
}

/** All lines as one text, each value made harmless by `harmless`. */
export function asLines({ summary, lines }: ChatText, harmless: (text: string) => string): string {
  return [harmless(summary), ...lines.map(([name, value]) => `${name}: ${harmless(value)}`)].join('\n')
}

/** For HTML and what is made like it. */
export function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
