import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { SMTPServer, type SMTPServerDataStream, type SMTPServerOptions, type SMTPServerSession } from 'smtp-server'

/** A mail as a server took it. */
export interface ReceivedMail {
  readonly from: string
  readonly to: readonly string[]
  readonly isSecure: boolean
  readonly user: string | undefined
  /** The whole message. */
  readonly raw: string
}

/** What a test server says to the next mails. */
export type Answer = 'take' | 'later' | 'never' | 'hang-up'

/** A real mail server on a port of this machine. */
export class TestSmtp implements AsyncDisposable {
  readonly mails: ReceivedMail[] = []
  /** For each attempt the next one; `take` when there is none. */
  readonly answers: Answer[] = []
  readonly #server: SMTPServer

  private constructor(options: SMTPServerOptions) {
    this.#server = new SMTPServer({
      authOptional: true,
      logger: false,
      disableReverseLookup: true,
      ...options,
      onData: (stream, session, done) => this.#onData(stream, session, done),
    })
    this.#server.on('error', () => {})
  }

  static async start(options: SMTPServerOptions = {}): Promise<TestSmtp> {
    const smtp = new TestSmtp(options)
    smtp.#server.listen(0, '127.0.0.1')
    await once(smtp.#server.server, 'listening')
    return smtp
  }

  get port(): number {
    const address = this.#server.server.address()
    if (!isAddressInfo(address)) throw new Error('it does not listen')
    return address.port
  }

  get url(): string {
    return `smtp://127.0.0.1:${this.port}`
  }

  #onData(stream: SMTPServerDataStream, session: SMTPServerSession, done: (error?: Error) => void): void {
    const answer = this.answers.shift() ?? 'take'
    if (answer === 'hang-up') {
      // In the middle of the message: nobody says whether it was taken.
      for (const connection of this.#server.connections) destroy(connection)
      return
    }
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('end', () => {
      if (answer !== 'take') return done(refusal(answer))
      const { mailFrom, rcptTo } = session.envelope
      this.mails.push({
        from: mailFrom === false ? '' : mailFrom.address,
        to: rcptTo.map(({ address }) => address),
        isSecure: session.secure,
        user: session.user,
        raw: Buffer.concat(chunks).toString(),
      })
      done()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#server.connections) destroy(connection)
    await new Promise<void>((resolve) => this.#server.close(resolve))
  }
}

function refusal(answer: 'later' | 'never'): Error {
  const responseCode = answer === 'later' ? 451 : 550
  return Object.assign(new Error(answer === 'later' ? 'try again later' : 'no such mailbox'), { responseCode })
}

function isAddressInfo(address: string | AddressInfo | null): address is AddressInfo {
  return typeof address === 'object' && address !== null
}

/** Its type says nothing of the socket that each connection has. */
function destroy(connection: object): void {
  if ('_socket' in connection && isDestroyable(connection._socket)) connection._socket.destroy()
}

function isDestroyable(value: unknown): value is { destroy(): void } {
  return typeof value === 'object' && value !== null && 'destroy' in value
}

/** The first link in the text of a mail, as people see it. */
export function linkIn({ raw }: ReceivedMail): URL {
  const text = decodeText(raw)
  const [link] = /https?:\/\/[^\s"<]+/.exec(text) ?? []
  if (link === undefined) throw new Error(`there is no link in ${text}`)
  return new URL(link)
}

/** The text part of a message, its transfer encoding undone. */
export function decodeText(raw: string): string {
  const start = raw.search(/Content-Type: text\/plain/i)
  const [head = '', ...rest] = raw.slice(start).split('\r\n\r\n')
  const body = rest.join('\r\n\r\n').split(/\r\n--/, 1)[0] ?? ''
  if (/base64/i.test(head)) return Buffer.from(body, 'base64').toString()
  if (!/quoted-printable/i.test(head)) return body
  const bytes = body
    .replace(/=\r\n/g, '')
    .replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return Buffer.from(bytes, 'latin1').toString()
}
