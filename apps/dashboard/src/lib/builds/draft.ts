const STORED_AS = 'wrenn.new-build'

/** What of a build that is being described outlives a reload, in this tab alone. */
export interface Draft {
  readonly name: string
  readonly dockerfile: string
}

export function storeDraft(storage: Storage, draft: Draft): void {
  storage.setItem(STORED_AS, JSON.stringify(draft))
}

export function dropDraft(storage: Storage): void {
  storage.removeItem(STORED_AS)
}

/** `undefined` when there is none, or what is stored is no draft. */
export function loadDraft(storage: Storage): Draft | undefined {
  try {
    const found: unknown = JSON.parse(storage.getItem(STORED_AS) ?? 'null')
    if (typeof found !== 'object' || found === null || !('name' in found) || !('dockerfile' in found)) return undefined
    const { name, dockerfile } = found
    return typeof name === 'string' && typeof dockerfile === 'string' ? { name, dockerfile } : undefined
  } catch {
    // Its only failure: it is no JSON.
    return undefined
  }
}
