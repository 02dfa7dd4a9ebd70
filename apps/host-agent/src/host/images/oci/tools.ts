import { join } from 'node:path'
import { missingPackage } from '../command.js'
import { exists } from '../store.js'
import { SANDBOX_PATH } from './sandbox.js'

/** With Debian's packages that bring them. */
const TOOLS = { bwrap: 'bubblewrap', skopeo: 'skopeo', umoci: 'umoci' } as const

/** @throws AppError `invalid_config` naming the package of a program that a fetch needs and this machine lacks */
export async function needTools(path: string = SANDBOX_PATH): Promise<void> {
  const folders = path.split(':')
  for (const [tool, debianPackage] of Object.entries(TOOLS)) {
    const found = await Promise.all(folders.map((folder) => exists(join(folder, tool))))
    if (!found.includes(true)) throw missingPackage(tool, debianPackage)
  }
}
