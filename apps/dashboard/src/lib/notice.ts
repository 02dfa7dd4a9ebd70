const STORED_AS = 'wrenn.notice'

/** Leaves a sentence for the page that this tab loads next. */
export function leaveNotice(storage: Pick<Storage, 'setItem'>, text: string): void {
  storage.setItem(STORED_AS, text)
}

/** What the page before has left, once. */
export function takeNotice(storage: Pick<Storage, 'getItem' | 'removeItem'>): string | undefined {
  const text = storage.getItem(STORED_AS) ?? undefined
  storage.removeItem(STORED_AS)
  return text
}
