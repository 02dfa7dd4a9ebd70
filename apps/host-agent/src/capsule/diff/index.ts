export { type ChangedPart, type FileChange, type FileKind, pathText } from './change.js'
export { CheckpointDiffer, type DiffPage } from './differ.js'
export { diffDisks } from './disk-diff.js'
export type { DiffInput } from './input.js'
