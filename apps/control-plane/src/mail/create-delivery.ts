import type { Logger } from '@wrenn/base'
import type { Delivery } from './delivery.js'
import { createOutboxFolder } from './outbox-folder.js'
import { createSmtpDelivery } from './smtp.js'

/** How mail leaves this platform. */
export interface MailConfig {
  readonly from: string
  /** @default none: mails go to the outbox folder */
  readonly smtpUrl: string | undefined
  readonly smtpCaFile: string | undefined
  /** @default none: without SMTP as well, mails are left to other control planes */
  readonly outboxDir: string | undefined
}

/** By SMTP, else into the outbox folder; `undefined` when there is neither. @throws AppError `invalid_config` */
export function createDelivery(
  { from, smtpUrl, smtpCaFile, outboxDir }: MailConfig,
  logger: Logger,
): Delivery | undefined {
  if (smtpUrl !== undefined) return createSmtpDelivery({ url: smtpUrl, from, caFile: smtpCaFile })
  if (outboxDir !== undefined) return createOutboxFolder({ dir: outboxDir, from, logger })
  logger.warn({}, 'mail.not_configured')
  return undefined
}
