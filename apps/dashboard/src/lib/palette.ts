/** Something that the command palette leads to or does. */
export interface PaletteEntry {
  readonly label: string
  /** What else it is found by. */
  readonly words?: string
  /** Where it belongs, such as `Go to`. */
  readonly group: string
  readonly run: () => void
}

const MAX_SHOWN = 50

/** Those that have all words; the ones whose label begins with the first word come first. */
export function findEntries<Entry extends Pick<PaletteEntry, 'label' | 'words'>>(
  entries: readonly Entry[],
  search: string,
): Entry[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean)
  const [first] = words
  const found = entries.filter((entry) => {
    const text = `${entry.label} ${entry.words ?? ''}`.toLowerCase()
    return words.every((word) => text.includes(word))
  })
  if (first === undefined) return found.slice(0, MAX_SHOWN)
  const begins = ({ label }: Entry): number => (label.toLowerCase().startsWith(first) ? 0 : 1)
  return found.sort((one, other) => begins(one) - begins(other)).slice(0, MAX_SHOWN)
}
