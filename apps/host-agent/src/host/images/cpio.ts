/** An entry of an initramfs; parents must come before their children. */
export type CpioEntry =
  | { readonly kind: 'directory'; readonly name: string }
  | { readonly kind: 'file'; readonly name: string; readonly content: Uint8Array; readonly mode?: number }
  | { readonly kind: 'symlink'; readonly name: string; readonly target: string }
  | CpioDevice

/** A device node; the kernel makes it while it unpacks, before anything of user space runs. */
export interface CpioDevice {
  readonly kind: 'device'
  readonly name: string
  readonly type?: 'character' | 'block'
  readonly major: number
  readonly minor: number
  /** Permissions. @default 0o600 */
  readonly mode?: number
}

/**
 * A cpio archive in the kernel's "newc" format, owned by root and without times, so equal entries give equal bytes.
 * @see https://docs.kernel.org/driver-api/early-userspace/buffer-format.html
 */
export function createCpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.map((entry, index) => member(index + 1, modeOf(entry), entry.name, contentOf(entry), entry))
  const trailer = member(0, 0, 'TRAILER!!!', Buffer.alloc(0))
  return pad(Buffer.concat([...parts, trailer]), 512)
}

function modeOf(entry: CpioEntry): number {
  switch (entry.kind) {
    case 'directory':
      return 0o040755
    case 'file':
      return 0o100000 | (entry.mode ?? 0o644)
    case 'symlink':
      return 0o120777
    case 'device':
      return (entry.type === 'block' ? 0o060000 : 0o020000) | (entry.mode ?? 0o600)
  }
}

function contentOf(entry: CpioEntry): Uint8Array {
  if (entry.kind === 'file') return entry.content
  return Buffer.from(entry.kind === 'symlink' ? entry.target : '')
}

function member(inode: number, mode: number, name: string, content: Uint8Array, entry?: CpioEntry): Buffer {
  const [major, minor] = entry?.kind === 'device' ? [entry.major, entry.minor] : [0, 0]
  const links = entry?.kind === 'directory' ? 2 : 1
  // inode mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, major, minor, Buffer.byteLength(name) + 1, 0]
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}${name}\0`
  return Buffer.concat([pad(Buffer.from(header), 4), pad(content, 4)])
}

function pad(bytes: Uint8Array, multiple: number): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((multiple - (bytes.length % multiple)) % multiple)])
}
