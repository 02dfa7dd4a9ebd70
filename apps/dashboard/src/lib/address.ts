import { goto } from '$app/navigation'
import { page } from '$app/state'

/** Puts what a page shows into its address, so that a reload and a link show it again; an empty text takes it out. */
export function showInAddress(name: string, value: string): void {
  const query = new URLSearchParams(page.url.searchParams)
  if (value === '') query.delete(name)
  else query.set(name, value)
  void goto(`?${query}`, { replaceState: true, keepFocus: true, noScroll: true })
}
