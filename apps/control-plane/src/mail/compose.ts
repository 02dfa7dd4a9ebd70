import type { MailRow } from '../store/schema.js'
import type { OutgoingMail } from './delivery.js'
import type { MailData, MailKind } from './kinds.js'
import { render } from './layout.js'
import type { Letter, Links } from './letter.js'
import { letters } from './letters/index.js'

/** The mail that a row stands for; `undefined` when this version has no letter for its kind. */
export function compose({ id, recipient, kind, data }: MailRow, links: Links): OutgoingMail | undefined {
  if (!isMailKind(kind) || data === null) return undefined
  return { id, to: recipient, ...render(letterOf(kind, data, links)) }
}

function letterOf<Kind extends MailKind>(kind: Kind, data: Readonly<Record<string, string>>, links: Links): Letter {
  // `Mailer.send` is the only writer, and takes kind and data as one type.
  return letters[kind](data as unknown as MailData[Kind], links)
}

function isMailKind(kind: string): kind is MailKind {
  return Object.hasOwn(letters, kind)
}
