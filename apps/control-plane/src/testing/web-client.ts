/** Keeps cookies as a browser does, for each origin, and follows no redirect by itself. */
export class WebClient {
  readonly #cookies = new Map<string, { readonly path: string; readonly value: string }>()

  async fetch(url: string | URL, init: RequestInit = {}): Promise<Response> {
    const { origin, pathname } = new URL(url)
    const prefix = `${origin} `
    const sent = [...this.#cookies]
      .filter(([key, { path }]) => key.startsWith(prefix) && pathname.startsWith(path))
      .map(([key, { value }]) => `${key.slice(prefix.length)}=${value}`)
    const headers = new Headers(init.headers)
    if (sent.length > 0) headers.set('cookie', sent.join('; '))
    const response = await fetch(url, { redirect: 'manual', ...init, headers })
    for (const line of response.headers.getSetCookie()) this.#keep(prefix, line)
    return response
  }

  /** Goes where an answer leads to, as long as it is at `origin`; gives where it leads to beyond that, or the page there. */
  async follow(start: string | URL, origin: string): Promise<{ readonly url: URL; readonly page: string | undefined }> {
    let url = new URL(start)
    while (url.origin === origin) {
      const response = await this.fetch(url)
      const location = response.headers.get('location')
      const page = await response.text()
      if (location === null) return { url, page }
      url = new URL(location, url)
    }
    return { url, page: undefined }
  }

  #keep(prefix: string, line: string): void {
    const [pair = '', ...attributes] = line.split(/;\s*/)
    const at = pair.indexOf('=')
    const path = attributes.find((attribute) => /^path=/i.test(attribute))?.slice(5) ?? '/'
    const isOver = attributes.some((attribute) => /^(?:max-age=0|expires=thu, 01 jan 1970.*)$/i.test(attribute))
    const key = prefix + pair.slice(0, at)
    if (isOver) this.#cookies.delete(key)
    else this.#cookies.set(key, { path, value: pair.slice(at + 1) })
  }
}
