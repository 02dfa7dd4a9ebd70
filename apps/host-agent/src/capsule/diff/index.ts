export { type ChangedPart, type FileChange, type FileKind, pathText } from './change.js'
export { diffDisks } from './disk-diff.js'
export type { DiffInput } from './input.js'
