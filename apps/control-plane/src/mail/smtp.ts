import { readFileSync } from 'node:fs'
import { AppError } from '@wrenn/base'
import { createTransport } from 'nodemailer'
import type SMTPTransport from 'nodemailer/lib/smtp-transport'
import { type Delivery, type OutgoingMail, RefusedForGood } from './delivery.js'
import { messageOf } from './message.js'

const CONNECT_MS = 15_000
/** Of silence; together with the deadline below an attempt always ends before its lease. */
const SILENCE_MS = 30_000
const ATTEMPT_MS = 90_000

/** Where mail goes: `smtp://` or `smtps://`, with user and password where it needs them, and whose certificates count. */
export interface SmtpOptions {
  readonly url: string
  readonly from: string
  /** PEM file of authorities to trust instead of the system's. */
  readonly caFile?: string | undefined
}

/**
 * Mail by SMTP. `smtps://` is TLS from the first byte. `smtp://` begins in the clear and must go over to TLS (STARTTLS) before anything is
 * said, else nothing is sent; only to this machine itself, or with `?tls=off`, it stays as it is. The server's certificate must be valid for
 * the name in the URL, always.
 * @throws AppError `invalid_config`
 */
export function createSmtpDelivery(options: SmtpOptions): Delivery {
  const transport = createTransport(transportOptions(options))
  return {
    deliver: (mail) => deliver(transport, options.from, mail),
    close: () => transport.close(),
  }
}

async function deliver(
  transport: ReturnType<typeof createTransport<SMTPTransport.SentMessageInfo, SMTPTransport.Options>>,
  from: string,
  mail: OutgoingMail,
): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const overdue = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`The mail server took longer than ${ATTEMPT_MS / 1000} s.`)), ATTEMPT_MS)
  })
  try {
    await Promise.race([transport.sendMail(messageOf(mail, from)), overdue])
  } catch (error) {
    throw isRefusal(error) ? new RefusedForGood(error.message, { cause: error }) : error
  } finally {
    clearTimeout(timer)
  }
}

/** Of 5xx, those that are about us, whatever they are the answer to (RFC 4954 §6). */
const AUTHENTICATION_ANSWERS = [530, 534, 535, 538]

/**
 * A 5xx answer to the mail itself or to whom it is for (RFC 5321 §4.2.1). One to what comes before that, such as wrong credentials or a sender
 * that is not ours to use, says nothing about the mail and is mended by the operator.
 */
function isRefusal(error: unknown): error is Error {
  if (!(error instanceof Error)) return false
  const code = 'responseCode' in error ? Number(error.responseCode) : 0
  const command = 'command' in error ? String(error.command) : ''
  if (code < 500 || code >= 600 || AUTHENTICATION_ANSWERS.includes(code)) return false
  return ['RCPT TO', 'DATA'].includes(command)
}

/** How a connection is made; for tests too. @throws AppError `invalid_config` */
export function transportOptions({ url, caFile }: SmtpOptions): SMTPTransport.Options {
  const { protocol, hostname, port, username, password, searchParams } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  const isTlsFromStart = protocol === 'smtps:'
  const tls = searchParams.get('tls') ?? (isLoopback(host) ? 'off' : 'required')
  if (tls !== 'off' && tls !== 'required')
    throw new AppError('invalid_config', 'WRENN_SMTP_URL: tls is required or off.')
  const isClear = !isTlsFromStart && tls === 'off'
  return {
    host,
    port: port === '' ? (isTlsFromStart ? 465 : 587) : Number(port),
    secure: isTlsFromStart,
    requireTLS: !isTlsFromStart && !isClear,
    ignoreTLS: isClear,
    ...(username === '' ? {} : { auth: { user: decodeURIComponent(username), pass: decodeURIComponent(password) } }),
    tls: { minVersion: 'TLSv1.2', ...(caFile === undefined ? {} : { ca: readFileSync(caFile) }) },
    connectionTimeout: CONNECT_MS,
    greetingTimeout: CONNECT_MS,
    socketTimeout: SILENCE_MS,
    disableFileAccess: true,
    disableUrlAccess: true,
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}
