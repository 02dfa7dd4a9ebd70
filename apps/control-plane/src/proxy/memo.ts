const KEPT = 1_000

/**
 * Keeps what is read of short texts: clients send the same few with every request. What throws is not kept, nor what is longer than `maxLength`.
 */
export function memo<T>(read: (text: string) => T, maxLength: number): (text: string) => T {
  const kept = new Map<string, T>()
  return (text) => {
    const known = kept.get(text)
    if (known !== undefined) return known
    const found = read(text)
    if (text.length > maxLength) return found
    if (kept.size >= KEPT) kept.clear()
    kept.set(text, found)
    return found
  }
}
