import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Logger, writeFileAtomic } from '@wrenn/base'
import { createTransport } from 'nodemailer'
import type { Delivery, OutgoingMail } from './delivery.js'
import { messageOf } from './message.js'

/** The newest are kept: a machine without a mail server is one for trying things out. */
const MAX_FILES = 100

interface OutboxFolderOptions {
  /** Made when it is missing. */
  readonly dir: string
  readonly from: string
  readonly logger: Logger
  /** @default 100 */
  readonly maxFiles?: number
}

/**
 * For a platform without a mail server: each mail becomes a file in `dir`, which only its owner may read, named after the time. The log says
 * that there is one and for whom, nothing of what it says.
 */
export function createOutboxFolder({ dir, from, logger, maxFiles = MAX_FILES }: OutboxFolderOptions): Delivery {
  const transport = createTransport({ streamTransport: true, buffer: true, newline: 'unix' })
  return {
    deliver: async (mail) => {
      const { message } = await transport.sendMail(messageOf(mail, from))
      if (!Buffer.isBuffer(message)) throw new Error('the message is not in one piece')
      await mkdir(dir, { recursive: true, mode: 0o700 })
      const file = await writeOwn(dir, mail, message)
      logger.info({ mailId: mail.id, to: mail.to, file }, 'mail.in_outbox')
      await keepNewest(dir, maxFiles)
    },
    close: () => transport.close(),
  }
}

/** Complete or not there. The same mail again, after a crash, is a second file. */
async function writeOwn(dir: string, { id }: OutgoingMail, message: Buffer): Promise<string> {
  const path = join(dir, `${new Date().toISOString().replace(/[:.]/g, '-')}-${id}.eml`)
  await writeFileAtomic(path, message)
  return path
}

async function keepNewest(dir: string, maxFiles: number): Promise<void> {
  const names = (await readdir(dir)).filter((name) => name.includes('.eml')).sort()
  for (const name of names.slice(0, Math.max(0, names.length - maxFiles))) await rm(join(dir, name), { force: true })
}
