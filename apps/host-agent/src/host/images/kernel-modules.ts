/** Names with `-` and `_` mean the same module. */
export function moduleName(name: string): string {
  return name.replaceAll('-', '_')
}

/**
 * What a module says it needs, from the `depends=` and `softdep=pre:` strings of its `.modinfo` section. Debian's packages
 * carry no modules.dep (depmod makes it at installation), and these strings are what depmod's order comes from.
 */
export function moduleDependencies(content: Uint8Array): readonly string[] {
  const text = Buffer.from(content).toString('latin1')
  const hard = /\0depends=([^\0]*)\0/.exec(text)?.[1] ?? ''
  const soft = [...text.matchAll(/\0softdep=pre: ([^\0]*?)(?: post:[^\0]*)?\0/g)].flatMap((match) =>
    (match[1] ?? '').split(' '),
  )
  return [...hard.split(','), ...soft].filter((name) => name !== '').map(moduleName)
}

/**
 * The modules to load for `roots`, dependencies first. `dependenciesOf` gives `undefined` for what is built into the kernel
 * or does not exist; the caller decides which roots may be absent.
 */
export function loadOrder(
  roots: readonly string[],
  dependenciesOf: (name: string) => readonly string[] | undefined,
): readonly string[] {
  const order: string[] = []
  const seen = new Set<string>()
  const visit = (name: string): void => {
    if (seen.has(name)) return
    seen.add(name)
    const dependencies = dependenciesOf(name)
    if (dependencies === undefined) return
    for (const dependency of dependencies) visit(dependency)
    order.push(name)
  }
  for (const root of roots) visit(moduleName(root))
  return order
}
