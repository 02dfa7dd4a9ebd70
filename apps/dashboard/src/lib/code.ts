/** A code that was in the address, and the address without it. */
export interface TakenCode {
  readonly code: string | undefined
  readonly address: string
}

const NAMES = ['code', 'token']

/**
 * Links of mails and of the set-up have their code in the query or the fragment. It is to be gone from the address bar before
 * anything else happens: histories, screenshots and pasted addresses would keep it.
 */
export function takeCode(address: URL): TakenCode {
  const url = new URL(address)
  const fragment = new URLSearchParams(url.hash.slice(1))
  let code: string | undefined
  for (const name of NAMES) {
    code ??= url.searchParams.get(name) ?? fragment.get(name) ?? undefined
    url.searchParams.delete(name)
    fragment.delete(name)
  }
  const rest = fragment.toString()
  url.hash = rest === '' ? '' : `#${rest}`
  return { code: code === '' ? undefined : code, address: url.pathname + url.search + url.hash }
}
