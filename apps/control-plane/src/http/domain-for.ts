/** The name below which ports are reached: one that names no port is reached at the one that this request came to. */
export function domainFor(domain: string, authority = ''): string {
  const port = /:\d+$/.exec(authority)?.[0] ?? ''
  return /:\d+$/.test(domain) ? domain : `${domain}${port}`
}
