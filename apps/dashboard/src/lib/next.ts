const HOME = '/dashboard/capsules'

/**
 * Where to go after a sign-in: the page of this site that was asked for, and never another site, however the text is written.
 * @param next of the address bar, so anybody's words
 */
export function safeNext(next: string | null, origin: string): string {
  if (next === null || !next.startsWith('/') || /^\/[/\\]/.test(next) || hasControls(next)) return HOME
  const url = parse(next, origin)
  if (url === undefined || url.origin !== origin || !/^\/(?:dashboard|invitation|device)(?:\/|$)/.test(url.pathname))
    return HOME
  return url.pathname + url.search + url.hash
}

/** The sign-in page that leads back to where somebody is. */
export function loginPath({ pathname, search }: { readonly pathname: string; readonly search: string }): string {
  return `/login?next=${encodeURIComponent(pathname + search)}`
}

/** Browsers drop some of these out of an address before they read it. */
function hasControls(text: string): boolean {
  return [...text].some((character) => character < ' ' || character === '\x7f')
}

function parse(path: string, origin: string): URL | undefined {
  try {
    return new URL(path, origin)
  } catch {
    return undefined
  }
}
