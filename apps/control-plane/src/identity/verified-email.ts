import { emailSchema } from '@wrenn/protocol'

const NAME_LENGTH = 100
/** Characters that no name has, and no database takes. */
const UNUSABLE = /[\p{Cc}\p{Surrogate}]/gu

/** In the form that accounts have; `undefined` for what no mail can be sent to. */
export function verifiedEmail(email: string | undefined): string | undefined {
  const parsed = emailSchema.safeParse(email)
  return parsed.success ? parsed.data : undefined
}

/** The first of them that is a name; empty where none is. */
export function nameFrom(...names: readonly (string | null | undefined)[]): string {
  const usable = names.map((name) => (name ?? '').trim().slice(0, NAME_LENGTH).replace(UNUSABLE, '').trim())
  return usable.find((name) => name !== '') ?? ''
}
