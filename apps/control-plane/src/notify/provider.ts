import type { WebhookEvent } from '@wrenn/protocol'
import type { Guard } from './guard.js'

/** What a provider is addressed with, as people gave it. */
export type ChannelConfig = Readonly<Record<string, string>>

/** One event, as it is told. `id` is the same with each attempt. */
export type Message = WebhookEvent

/** A request to a provider. */
export interface OutgoingRequest {
  readonly method: 'POST' | 'PUT'
  readonly url: URL
  /** For people: nothing secret in it. */
  readonly shownUrl: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** What came back. The body is cut. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: string
}

/**
 * What an answer means. `later`: try again, after a time if it names one. `refused`: this message never will be taken. `gone`: nothing will
 * be, until somebody changes the channel.
 */
export type Verdict =
  | { readonly kind: 'delivered' /** Before the next one. */; readonly pauseMs?: number | undefined }
  | { readonly kind: 'later'; readonly reason: string; readonly isRate: boolean; readonly afterMs?: number | undefined }
  | { readonly kind: 'refused'; readonly reason: string }
  | { readonly kind: 'gone'; readonly reason: string }

/** How one kind of target is spoken to. */
export interface Provider {
  /** What of one channel is sent at a time; of a capsule never more than one. */
  readonly concurrency: number
  /** Checks what people gave; gives it in the form that is kept. @throws AppError `invalid_request`, `target_refused` */
  parse(config: ChannelConfig, guard: Guard): ChannelConfig
  /** For people, nothing secret: the host. */
  target(config: ChannelConfig): string
  /** What must be shown nowhere. */
  secrets(config: ChannelConfig): readonly string[]
  request(config: ChannelConfig, message: Message, at: Date): OutgoingRequest
  judge(answer: Answer): Verdict
}
