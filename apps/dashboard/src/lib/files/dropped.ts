/** A file that was dropped or chosen, and where it belongs below the directory. */
export interface Dropped {
  readonly file: File
  /** With slashes where it came in a folder. */
  readonly path: string
}

/** All files of a drop, also those in folders. To be called while the drop is handled: its items are gone afterwards. */
export async function droppedFiles({ items }: DataTransfer): Promise<Dropped[]> {
  const entries = [...items].flatMap((item) => item.webkitGetAsEntry() ?? [])
  const found: Dropped[] = []
  for (const entry of entries) await collect(entry, entry.name, found)
  return found
}

/** Those of an input, which tells paths only where whole folders were chosen. */
export function chosenFiles(files: FileList | null): Dropped[] {
  return [...(files ?? [])].map((file) => ({ file, path: file.webkitRelativePath || file.name }))
}

async function collect(entry: FileSystemEntry, path: string, into: Dropped[]): Promise<void> {
  if (isFile(entry)) {
    into.push({ file: await new Promise<File>((resolve, reject) => entry.file(resolve, reject)), path })
    return
  }
  if (!isDirectory(entry)) return
  const reader = entry.createReader()
  // Browsers give a folder in portions, the last of which is empty.
  for (;;) {
    const portion = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject))
    if (portion.length === 0) return
    for (const child of portion) await collect(child, `${path}/${child.name}`, into)
  }
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile
}

function isDirectory(entry: FileSystemEntry): entry is FileSystemDirectoryEntry {
  return entry.isDirectory
}
