import { copyFile, mkdir, realpath, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { AppError } from '@wrenn/base'
import { z } from 'zod'
import { runForResult } from '../exec.js'
import { runCommand } from './command.js'

export const nodeChoice = z.object({
  /** Such as `v20.20.2`. */
  version: z.string(),
  /** It is the Node.js that this machine runs itself. */
  isHosts: z.boolean(),
  /** A sentence for people: why this one. */
  reason: z.string(),
})
export type NodeChoice = z.infer<typeof nodeChoice>

/** Where Node.js for guests may come from, best first. */
export interface NodeSources {
  /** @default process.execPath */
  readonly host?: string
  /** One that was installed for guests alone, and may be missing. */
  readonly bundled?: string
}

/**
 * All that the agent asks of a Node.js beside the language: to start with nothing around it, and to do file work as somebody
 * else. Builds of distributions fail at the first (parts of them lie in /usr/share) or refuse the second (CVE-2024-22017).
 */
const PROBE = `process.setgroups([1]); process.setegid(1); process.seteuid(1); require('fs').statSync('/')
process.seteuid(0); process.setegid(0); process.setgroups([]); process.stdout.write(process.version)`
const PROBE_TIMEOUT_MS = 60_000

/**
 * The first Node.js that runs alone in a folder of its own, as it will in a guest, and gives up rights when asked.
 * @param scratchDir may be written
 * @throws AppError `invalid_config` with what each one said
 */
export async function chooseNode(
  sources: NodeSources,
  scratchDir: string,
  signal?: AbortSignal,
): Promise<{ readonly path: string; readonly choice: NodeChoice }> {
  const host = hostNode(sources)
  const own = await tryNode(host, scratchDir, signal)
  if ('version' in own) {
    return { path: host, choice: { ...own, isHosts: true, reason: "This machine's own, which needs nothing else." } }
  }
  const why = `This machine's own (${host}) cannot run in a guest: ${own.problem}.`
  const { bundled } = sources
  const other = bundled === undefined ? { problem: 'none is installed' } : await tryNode(bundled, scratchDir, signal)
  if (bundled !== undefined && 'version' in other) {
    return { path: bundled, choice: { ...other, isHosts: false, reason: why } }
  }
  const next = 'problem' in other ? other.problem : ''
  throw new AppError(
    'invalid_config',
    `No Node.js for guests. ${why} That for guests alone (${bundled ?? 'apps/guest-agent/runtime'}) is not usable either: ${next}. ` +
      'Install it with `npm ci` in apps/guest-agent/runtime, or run Wrenn with Node.js from nodejs.org.',
  )
}

/** Changes when another Node.js may be the answer. Identity instead of content: 100 MB that change only with a package. */
export async function identityOfNodes(sources: NodeSources): Promise<string> {
  const paths = [hostNode(sources), ...(sources.bundled === undefined ? [] : [sources.bundled])]
  const known = await Promise.all(paths.map((path) => stat(path).catch(() => undefined)))
  return known.flatMap((info) => (info === undefined ? [] : [`${info.size}\0${info.mtimeMs}`])).join('\0')
}

function hostNode({ host = process.execPath }: NodeSources): string {
  return host
}

async function tryNode(
  path: string,
  scratchDir: string,
  signal: AbortSignal | undefined,
): Promise<{ readonly version: string } | { readonly problem: string }> {
  if ((await stat(path).catch(() => undefined)) === undefined) return { problem: 'it is not installed' }
  const root = join(scratchDir, 'node-probe')
  try {
    const loader = await copyProgram(path, root, signal)
    const run = ['--library-path', '/lib', '/node', '-e', PROBE]
    const options = { timeoutMs: PROBE_TIMEOUT_MS, ...(signal ? { signal } : {}) }
    const { exitCode, stdout, stderr } = await runForResult('chroot', [root, `/lib/${loader}`, ...run], options)
    return exitCode === 0 && stdout !== '' ? { version: stdout } : { problem: problemIn(stderr) }
  } catch (error) {
    // Without a library, or no dynamic program at all, it is as unfit as one that refuses.
    if (!AppError.is(error, 'image_build_failed')) throw error
    return { problem: error.message.replace(/\.$/, '') }
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}

/** A program with its libraries in `<root>/lib`. @returns name of its loader */
async function copyProgram(path: string, root: string, signal: AbortSignal | undefined): Promise<string> {
  const lib = join(root, 'lib')
  await mkdir(lib, { recursive: true })
  await copyFile(path, join(root, 'node'))
  const libraries = await sharedLibraries(path, signal)
  for (const [name, library] of libraries) await copyFile(await realpath(library), join(lib, name))
  const loader = [...libraries.keys()].find((name) => /^ld-linux/.test(name))
  if (loader === undefined) throw new AppError('image_build_failed', `${path} names no dynamic loader.`)
  return loader
}

function problemIn(stderr: string): string {
  const lines = stderr.split('\n').map((line) => line.trim())
  return (
    (lines.find((line) => /error|cannot|refuse|denied/i.test(line)) ?? lines[0] ?? '').replace(/\.$/, '') ||
    'it said nothing'
  )
}

/** Name in a drive's `lib` → path, as ldd resolves them on this machine; the loader is among them. */
export async function sharedLibraries(
  path: string,
  signal: AbortSignal | undefined,
): Promise<ReadonlyMap<string, string>> {
  const { stdout } = await runCommand('ldd', [path], { signal, debianPackage: 'libc-bin' })
  const found = new Map<string, string>()
  for (const line of stdout.toString().split('\n')) {
    if (/=> not found/.test(line)) throw new AppError('image_build_failed', `${path} lacks a library: ${line.trim()}`)
    const library = /(?:=> )?(\/\S+) \(0x/.exec(line)?.[1]
    if (library !== undefined) found.set(basename(library), library)
  }
  return found
}
