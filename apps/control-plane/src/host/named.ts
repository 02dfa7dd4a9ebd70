/** The capsule or snapshot that a call is about. */
export type Named = { readonly kind: 'capsule' | 'snapshot'; readonly id: string }

/** What a request to a host names; the beginning of an upload is in a part of its own. A capsule comes before the snapshot that it is made from. */
export function namedBy(request: unknown): Named | undefined {
  const fields = fieldsOf(request)
  const open = fieldsOf(fieldsOf(fields.part).value)
  const [first] = Array.isArray(fields.capsuleIds) ? fields.capsuleIds : []
  const capsuleId = idIn(fields.capsuleId) ?? idIn(first) ?? idIn(open.capsuleId)
  if (capsuleId !== undefined) return { kind: 'capsule', id: capsuleId }
  const snapshotId = idIn(fields.snapshotId)
  return snapshotId === undefined ? undefined : { kind: 'snapshot', id: snapshotId }
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {}
}

function idIn(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
