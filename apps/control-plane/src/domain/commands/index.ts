export { type OpenedArchive, openArchive, writeArchive } from './archive.js'
export { execBackground, execForeground } from './exec.js'
export { type FileTarget, openFile, toFileEntry, writeFile } from './files.js'
export { toProcessInfo, toSignal } from './processes.js'
export { commandLine, endDetails, startRecorded } from './recorded.js'
export {
  connectSession,
  exitInfo,
  parseSelector,
  type SessionContext,
  type SessionEvent,
  selectTag,
  startSession,
} from './session.js'
