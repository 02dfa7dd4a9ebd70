const TICK_MS = 1_000

/** The time, once a second, for as long as somebody looks at it. */
export class Clock {
  now = $state.raw(new Date())

  /** To be given to `$effect`. */
  run(): () => void {
    const timer = setInterval(() => {
      if (!document.hidden) this.now = new Date()
    }, TICK_MS)
    return () => clearInterval(timer)
  }
}
