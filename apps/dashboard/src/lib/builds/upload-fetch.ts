import { fetchWithProgress } from '../files/xhr-fetch.js'

/**
 * A `fetch` for builds. A Blob, such as a file, is sent from where it lies. Browsers send no streams by HTTP/1.1, so what is one is made whole first,
 * on the disk where the browser sees fit; all else goes as ever.
 * @param onProgress told how many bytes more were sent: less than none where it begins anew
 */
export function uploadFetch(onProgress: (bytes: number) => void): typeof globalThis.fetch {
  return async (input, init = {}) => {
    const body = init.body instanceof ReadableStream ? await new Response(init.body).blob() : init.body
    if (!(body instanceof Blob)) return await fetch(input, init)
    init.signal?.throwIfAborted()
    let seen = 0
    const tell = (sent: number): void => {
      onProgress(sent - seen)
      seen = sent
    }
    try {
      return await fetchWithProgress(tell)(input, { ...init, body })
    } catch (error) {
      tell(0)
      throw error
    }
  }
}
