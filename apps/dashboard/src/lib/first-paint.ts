declare global {
  /** Of `app.html`: lets the application come, where it was kept back until the list is painted. */
  var wrennPainted: (() => void) | undefined
}

export const FIRST_PAINT_ID = 'first-paint'

/** Ends what was shown until the application has something to show. */
export function endFirstPaint(): void {
  document.getElementById(FIRST_PAINT_ID)?.remove()
}
