export type { ChangedPart, FileChange, FileKind } from './change.js'
export { CheckpointDiffer, type DiffPage } from './differ.js'
export { diffDisks } from './disk-diff.js'
export type { DiffInput } from './input.js'
