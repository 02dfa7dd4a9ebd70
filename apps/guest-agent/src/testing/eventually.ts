import { waitFor } from '@wrenn/base'

/** Waits until `isSo`; a test that waits in vain fails with `what`. */
export async function eventually(what: string, isSo: () => Promise<boolean> | boolean): Promise<void> {
  await waitFor(async () => ((await isSo()) ? true : undefined), { timeoutMs: 15_000, what })
}
