/** A command as a line for a POSIX shell, which becomes that program. */
export function shellLine(argv: readonly string[]): string {
  return `exec ${argv.map(shellWord).join(' ')}`
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
