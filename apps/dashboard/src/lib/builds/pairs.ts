/** Lines of `NAME=value`. */
export interface Pairs {
  readonly pairs: Readonly<Record<string, string>>
  /** Lines that are none, by their number from 1 on. */
  readonly wrong: readonly number[]
}

/** Build arguments as people write them: one a line; blank lines and those that begin with # say nothing. */
export function pairsOf(text: string): Pairs {
  const lines = text.split(/\r?\n/).map((line, index) => ({ line: line.trim(), number: index + 1 }))
  const said = lines.filter(({ line }) => line !== '' && !line.startsWith('#'))
  const isPair = ({ line }: { readonly line: string }): boolean => /^[A-Za-z_]\w*=/.test(line)
  return {
    pairs: Object.fromEntries(
      said.filter(isPair).map(({ line }) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
    ),
    wrong: said.filter((each) => !isPair(each)).map(({ number }) => number),
  }
}

/** Secrets that a Dockerfile asks for, by their ids. */
export function secretIdsOf(dockerfile: string): readonly string[] {
  const mounts = [...dockerfile.matchAll(/--mount=(\S*type=secret\S*)/g)].map(([, mount = '']) => mount.split(','))
  const ids = mounts.map((fields) => {
    const fieldOf = (...names: readonly string[]): string | undefined =>
      fields.find((field) => names.some((name) => field.startsWith(`${name}=`)))?.replace(/^[^=]*=/, '')
    return fieldOf('id') ?? fieldOf('target', 'dst', 'destination')?.split('/').at(-1)
  })
  return [...new Set(ids.filter((id) => id !== undefined && id !== ''))] as string[]
}
