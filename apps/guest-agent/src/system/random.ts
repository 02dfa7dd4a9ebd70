import { closeSync, openSync, readSync } from 'node:fs'

/**
 * Random bytes in hexadecimal, from the kernel. Never from this process: its own generator's state is part of the snapshot,
 * so every guest made from it would continue the same sequence, while the kernel is reseeded at each restore.
 */
export function randomHex(bytes: number): string {
  const buffer = Buffer.alloc(bytes)
  const device = openSync('/dev/urandom', 'r')
  try {
    readSync(device, buffer, 0, bytes, null)
  } finally {
    closeSync(device)
  }
  return buffer.toString('hex')
}
