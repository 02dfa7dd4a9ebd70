import { WrennError } from '@wrenn/sdk'

/** A browser does not read a file any more that is another one than when it was given. */
export function changed(path: string, cause: unknown): WrennError {
  const sentence = `${path} cannot be read any more: it changed or is gone.`
  return new WrennError(sentence, { code: 'file_not_found', hint: 'Drop the files again.', cause })
}

/** Why sending a file failed: the browser says of a file that it does not read any more that the connection broke. */
export async function sendingFailure(file: File, error: unknown): Promise<unknown> {
  if (!(error instanceof WrennError) || error.code !== 'connection_failed') return error
  try {
    await file.slice(0, 1).arrayBuffer()
    return error
  } catch (unreadable) {
    return changed(file.name, unreadable)
  }
}
