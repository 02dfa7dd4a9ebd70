import { chmod, copyFile, mkdir, readdir, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { obstacleOn, type RunAs } from '@wrenn/base'

/** How a service that runs as somebody else is started. */
export interface ServiceProgram {
  /** The Node.js that we are. */
  readonly program: string
  /** That Node.js lies where `who` may not enter, such as below /root: it is started from an open descriptor. */
  readonly isOpened: boolean
  readonly bundle: string
}

/** Where `who` cannot read the bundle, that is a copy in `copyDir`, made anew, with the native modules that lie beside it. */
export async function programFor(who: RunAs, bundle: string, copyDir: string): Promise<ServiceProgram> {
  const program = process.execPath
  const isOpened = (await obstacleOn(program, who)) !== undefined
  if ((await obstacleOn(bundle, who)) === undefined) return { program, isOpened, bundle }
  await mkdir(copyDir, { recursive: true, mode: 0o755 })
  const folder = dirname(bundle)
  const natives = (await readdir(folder)).filter((name) => name.endsWith('.node'))
  for (const name of natives) await copyAnew(join(folder, name), join(copyDir, name))
  const copy = join(copyDir, basename(bundle))
  await copyAnew(bundle, copy)
  return { program, isOpened, bundle: copy }
}

/** Who uses the file that was there keeps it. */
async function copyAnew(file: string, copy: string): Promise<void> {
  await copyFile(file, `${copy}.tmp`)
  await chmod(`${copy}.tmp`, 0o644)
  await rename(`${copy}.tmp`, copy)
}
