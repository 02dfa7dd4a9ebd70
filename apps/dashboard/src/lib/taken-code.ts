import { takeCode } from './code.js'

/** The code that this page's address came with; it is out of the address bar and the history afterwards. */
export function takeCodeOfPage(): string | undefined {
  const { code, address } = takeCode(new URL(location.href))
  if (code === undefined) return undefined
  // The router has not started when a page is first drawn; it takes over what is there.
  history.replaceState(history.state, '', address)
  return code
}
