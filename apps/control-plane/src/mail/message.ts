import { AppError } from '@wrenn/base'
import { isMailAddress } from '@wrenn/protocol'
import type Mail from 'nodemailer/lib/mailer'
import type { OutgoingMail } from './delivery.js'

/** What nodemailer makes a message of. Addresses go as objects and in an envelope, so that nothing of them is parsed. */
export function messageOf({ id, to, subject, text, html }: OutgoingMail, from: string): Mail.Options {
  const sender = senderOf(from)
  if (sender === undefined) throw new AppError('invalid_config', `${JSON.stringify(from)} is no address.`)
  return {
    from: sender,
    to: { name: '', address: to },
    envelope: { from: sender.address, to: [to] },
    messageId: `<${id}@${sender.address.replace(/^.*@/, '')}>`,
    subject,
    text,
    html,
    // Nobody's out-of-office answer is wanted (RFC 3834 §5).
    headers: { 'Auto-Submitted': 'auto-generated', 'X-Auto-Response-Suppress': 'All' },
    disableFileAccess: true,
    disableUrlAccess: true,
  }
}

interface Sender {
  readonly name: string
  readonly address: string
}

/** Whether a text is `Name <address>` or just an address. */
export function isSender(text: string): boolean {
  return senderOf(text) !== undefined
}

function senderOf(text: string): Sender | undefined {
  const [, name = '', inBrackets] = /^\s*"?([^"<>\p{C}]*?)"?\s*<([^<>]*)>\s*$/u.exec(text) ?? []
  const address = (inBrackets ?? text).trim()
  return isMailAddress(address) ? { name, address } : undefined
}
