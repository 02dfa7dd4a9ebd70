import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { boundCommand, obstacleOn, type RunAs } from '@wrenn/base'

/** How a service that runs as somebody else is started. */
export interface ServiceProgram {
  /** The Node.js that we are. */
  readonly program: string
  /** That Node.js lies where `who` may not enter, such as below /root: it is started from an open descriptor. */
  readonly isOpened: boolean
  readonly bundle: string
}

/** Where `who` cannot read the bundle, that is a copy in `copyDir`, made anew, with the native modules and the dashboard that lie beside it. */
export async function programFor(who: RunAs, bundle: string, copyDir: string): Promise<ServiceProgram> {
  const program = process.execPath
  const isOpened = (await obstacleOn(program, who)) !== undefined
  if ((await obstacleOn(bundle, who)) === undefined) return { program, isOpened, bundle }
  await mkdir(copyDir, { recursive: true, mode: 0o755 })
  const folder = dirname(bundle)
  const beside = (await readdir(folder)).filter((name) => /\.(?:node|pack)$/.test(name))
  for (const name of beside) await copyAnew(join(folder, name), join(copyDir, name))
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

/** What {@link spawnProgram} starts. */
export interface ProgramStart extends Pick<SpawnOptions, 'env' | 'detached'> {
  readonly program: string
  readonly args: readonly string[]
  /** Start the program from a descriptor: its user may not enter the folder that it lies in. @default false */
  readonly isOpened?: boolean
  /** @default as ourselves */
  readonly user?: RunAs | undefined
  /** Its descriptors, from stdin on. */
  readonly stdio: readonly ('ignore' | 'pipe' | number)[]
}

/** Starts a program that gets SIGTERM from the kernel when we die. */
export function spawnProgram({ program, args, isOpened = false, user, stdio, ...how }: ProgramStart): ChildProcess {
  const opened = isOpened ? openSync(program, 'r') : undefined
  const command = opened === undefined ? program : `/proc/self/fd/${stdio.length}`
  const [first, ...rest] = boundCommand(command, args, { signal: 'TERM', user })
  try {
    return spawn(first, rest, { ...how, stdio: opened === undefined ? [...stdio] : [...stdio, opened] })
  } finally {
    if (opened !== undefined) closeSync(opened)
  }
}
