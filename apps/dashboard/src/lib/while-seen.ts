/**
 * Does something now, and again after each pause, while the page is looked at; at once when somebody comes back to it. For what no event
 * tells of. @returns what ends it, for `$effect`
 */
export function whileSeen(task: () => void, everyMs: number): () => void {
  const look = (): void => {
    if (!document.hidden) task()
  }
  look()
  const timer = setInterval(look, everyMs)
  document.addEventListener('visibilitychange', look)
  return () => {
    clearInterval(timer)
    document.removeEventListener('visibilitychange', look)
  }
}
