/** Of `st_blocks`, whatever the file system's own block is (stat(2)). */
const BLOCK_BYTES = 512

/** What a file takes of its disk: holes cost nothing. */
export function allocatedBytes({ blocks }: { readonly blocks: number }): number {
  return blocks * BLOCK_BYTES
}
