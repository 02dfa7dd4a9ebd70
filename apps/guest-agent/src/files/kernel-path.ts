import { hasEscapes, pathBytes } from '@wrenn/base'

/**
 * What the kernel is asked for, for a path as it travels on wires (`pathText`). Bytes only where text cannot say it: Node takes
 * twice the time for them.
 */
export function kernelPath(path: string): string | Buffer {
  return hasEscapes(path) ? pathBytes(path) : path
}
