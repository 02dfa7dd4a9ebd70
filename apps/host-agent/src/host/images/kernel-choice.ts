import { AppError } from '@wrenn/base'
import { z } from 'zod'
import type { Apt } from './apt.js'

/** A name of the archive that always means the newest kernel of its kind. */
const PREFERRED = 'linux-image-6.12-cloud-amd64'
const SECOND = 'linux-image-cloud-amd64'

/** How the index of boot files keeps a choice. */
export const kernelChoice = z.object({
  /** The package that was taken. */
  package: z.string(),
  isPreferred: z.boolean(),
  /** A sentence for people: why this one. */
  reason: z.string(),
})
/** Which kernel guests boot and why, for `wrenn doctor` and `wrenn image ls`. */
export type KernelChoice = z.infer<typeof kernelChoice>

/**
 * Linux 6.12 where the archive has it: its VMGENID driver makes a restored guest reseed its random generator at once. Else the
 * release's own.
 * @throws AppError `invalid_config` when the archive has neither
 */
export async function chooseKernel(apt: Pick<Apt, 'dependencies' | 'suite'>): Promise<KernelChoice> {
  const preferred = await kernelOf(apt, PREFERRED)
  if (preferred !== undefined) {
    return { package: preferred, isPreferred: true, reason: `The newest of ${PREFERRED} in Debian ${apt.suite}.` }
  }
  const second = await kernelOf(apt, SECOND)
  if (second !== undefined) {
    const reason = `The newest of ${SECOND}, because this machine's sources of Debian ${apt.suite} have no ${PREFERRED}.`
    return { package: second, isPreferred: false, reason }
  }
  throw new AppError(
    'invalid_config',
    `This machine's sources of Debian ${apt.suite} have neither ${PREFERRED} nor ${SECOND}; name Debian's component main in them.`,
  )
}

async function kernelOf(apt: Pick<Apt, 'dependencies'>, metaPackage: string): Promise<string | undefined> {
  return (await apt.dependencies(metaPackage))?.find((name) => /^linux-image-\d/.test(name))
}
