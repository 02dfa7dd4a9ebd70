import { hasEscapes, pathBytes } from '@wrenn/base'

/**
 * What the kernel is asked for, for a path as it travels on wires (`pathText`). Bytes only where text cannot say it: Node takes
 * twice the time for them.
 */
export function kernelPath(path: string): string | Buffer {
  return hasEscapes(path) ? pathBytes(path) : path
}

/**
 * The file behind an open descriptor, as a path of plain ASCII: for programs, whose arguments Node can only give as text, and
 * which then work on the very file that was opened.
 */
export function descriptorPath(fd: number): string {
  return `/proc/${process.pid}/fd/${fd}`
}
