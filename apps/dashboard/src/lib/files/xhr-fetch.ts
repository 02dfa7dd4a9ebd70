/**
 * A `fetch` for uploads, which tells how far the body is: the browsers' own tells nothing of what it sends. Takes what an upload of
 * the SDK is made of: text or a Blob as a body, no streams.
 */
export function fetchWithProgress(onProgress: (sentBytes: number) => void): typeof globalThis.fetch {
  return (input, init = {}) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest()
      request.open(init.method ?? 'GET', String(input))
      request.responseType = 'blob'
      for (const [name, value] of new Headers(init.headers)) request.setRequestHeader(name, value)
      request.upload.addEventListener('progress', ({ loaded }) => onProgress(loaded))
      request.addEventListener('load', () => resolve(responseOf(request)))
      request.addEventListener('error', () => reject(new TypeError('The connection broke.')))
      request.addEventListener('abort', () => reject(new DOMException('The upload was given up.', 'AbortError')))
      init.signal?.addEventListener('abort', () => request.abort(), { once: true })
      request.send(init.body instanceof Blob || typeof init.body === 'string' ? init.body : null)
    })
}

function responseOf(request: XMLHttpRequest): Response {
  const headers = new Headers()
  for (const line of request
    .getAllResponseHeaders()
    .trim()
    .split(/[\r\n]+/)) {
    const at = line.indexOf(':')
    if (at > 0) headers.append(line.slice(0, at), line.slice(at + 1).trim())
  }
  const { status, statusText } = request
  const hasBody = status !== 204 && status !== 205 && status !== 304
  return new Response(hasBody ? request.response : null, { status, statusText, headers })
}
