import { expect } from 'vitest'

export const STOP_FILE = '/tmp/enough'
/** Counts until it is told to stop, so that it surely speaks before, during and after whatever happens to it. */
export const COUNT = `i=0; until [ -e ${STOP_FILE} ]; do i=$((i + 1)); echo "line $i"; sleep 0.02; done; echo "end $i"`

/** What `COUNT` printed, from beginning to end, nothing missing and nothing twice. */
export function expectComplete(output: string): void {
  const lines = output.replaceAll('\r', '').trimEnd().split('\n')
  const count = lines.length - 1
  expect(lines.at(-1)).toBe(`end ${count}`)
  expect(lines.slice(0, -1).findIndex((line, index) => line !== `line ${index + 1}`)).toBe(-1)
}

/**
 * Holds random bytes in its memory; each line is the next number and the bytes' hash, so whoever has the output knows whether
 * the process has lived on, whether it lived twice, and whether its memory is what it was.
 */
export const WITNESS = `
import hashlib, os, time
nonce = os.urandom(1 << 14)
count = 0
while not os.path.exists("${STOP_FILE}"):
    count += 1
    print(count, hashlib.sha256(nonce).hexdigest(), flush=True)
    time.sleep(0.1)
`

/** Checks what `WITNESS` printed. @returns its hash and its last number */
export function readWitness(output: string): { readonly hash: string; readonly count: number } {
  const lines = output.split('\n').slice(0, -1)
  const [, hash = ''] = lines[0]?.split(' ') ?? []
  expect(hash).toMatch(/^[0-9a-f]{64}$/)
  expect(lines.findIndex((line, index) => line !== `${index + 1} ${hash}`)).toBe(-1)
  return { hash, count: lines.length }
}
