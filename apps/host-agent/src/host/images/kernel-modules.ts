import { dirname } from 'node:path'
import type { CpioDevice, CpioEntry } from './cpio.js'

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

/** Nodes that everybody may open, as udev's rules have it; what can be done with one is the kernel's to decide. */
const OPEN_NODES: ReadonlySet<string> = new Set(['fuse', 'net/tun'])
/** Built into some kernels, which then make the node for root alone. */
const FUSE_NODE: CpioDevice = { kind: 'device', name: 'fuse', major: 10, minor: 229 }

/**
 * The device nodes of depmod's `modules.devname`, whose first opening loads a module, with their folders, as a device manager
 * would make them at boot.
 */
export function deviceNodes(devname: string): readonly CpioEntry[] {
  const named = [...devname.matchAll(/^\S+ (\S+) ([cb])(\d+):(\d+)$/gm)].map(
    ([, name = '', type, major, minor]): CpioDevice => ({
      kind: 'device',
      name,
      type: type === 'b' ? 'block' : 'character',
      major: Number(major),
      minor: Number(minor),
    }),
  )
  const nodes = [...named.filter(({ name }) => name !== FUSE_NODE.name), FUSE_NODE]
  const folders = [...new Set(nodes.map(({ name }) => dirname(name)))].filter((name) => name !== '.').sort()
  return [
    ...folders.map((name) => ({ kind: 'directory', name }) as const),
    ...nodes.map((node) => ({ ...node, mode: OPEN_NODES.has(node.name) ? 0o666 : 0o600 })),
  ]
}
