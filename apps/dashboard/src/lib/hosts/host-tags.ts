/** What was typed as one line, each tag once: with spaces or commas between them, as the command line takes them. */
export function tagsIn(text: string): string[] {
  return [...new Set(text.split(/[\s,]+/).filter(Boolean))]
}
