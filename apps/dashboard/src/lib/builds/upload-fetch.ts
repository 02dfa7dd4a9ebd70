import { fetchWithProgress } from '../files/xhr-fetch.js'

/**
 * A `fetch` for builds. Browsers send no streams by HTTP/1.1, so what is one is made whole first, on the disk where the browser sees fit;
 * all else goes as ever.
 * @param onProgress told how many bytes more were sent
 */
export function uploadFetch(onProgress: (bytes: number) => void): typeof globalThis.fetch {
  return async (input, init = {}) => {
    if (!(init.body instanceof ReadableStream)) return await fetch(input, init)
    const body = await new Response(init.body).blob()
    init.signal?.throwIfAborted()
    let seen = 0
    const send = fetchWithProgress((sent) => {
      onProgress(sent - seen)
      seen = sent
    })
    return await send(input, { ...init, body })
  }
}
