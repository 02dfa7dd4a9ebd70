/** A mail as it leaves us. */
export interface OutgoingMail {
  readonly id: string
  readonly to: string
  readonly subject: string
  readonly text: string
  readonly html: string
}

/** Where mails go. Several calls may be under way at once. */
export interface Delivery {
  /** Resolves when the next hop has taken the mail. @throws RefusedForGood, or anything else when it may be tried again */
  deliver(mail: OutgoingMail): Promise<void>
  close(): void
}

/** The next hop will never take this mail. */
export class RefusedForGood extends Error {
  override readonly name = 'RefusedForGood'
}
