import { chmod, copyFile, mkdir, rename } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { obstacleOn, type RunAs } from '@wrenn/base'

/** How a service that runs as somebody else is started. */
export interface ServiceProgram {
  /** The Node.js that we are. */
  readonly program: string
  /** That Node.js lies where `who` may not enter, such as below /root: it is started from an open descriptor. */
  readonly isOpened: boolean
  readonly bundle: string
}

/** Where `who` cannot read the bundle, that is a copy in `copyDir`, made anew. */
export async function programFor(who: RunAs, bundle: string, copyDir: string): Promise<ServiceProgram> {
  const program = process.execPath
  const isOpened = (await obstacleOn(program, who)) !== undefined
  if ((await obstacleOn(bundle, who)) === undefined) return { program, isOpened, bundle }
  const copy = join(copyDir, basename(bundle))
  await mkdir(copyDir, { recursive: true, mode: 0o755 })
  await copyFile(bundle, `${copy}.tmp`)
  await chmod(`${copy}.tmp`, 0o644)
  await rename(`${copy}.tmp`, copy)
  return { program, isOpened, bundle: copy }
}
