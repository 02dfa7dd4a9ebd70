import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import type { BuildStep, StepSecret } from '../../store/schema.js'
import { type BuildGuest, below, PLACES, SMALL_ANSWER_BYTES } from './guest.js'
import { SecretMask } from './secret-mask.js'

const ROOT = '0:0'
const MODE = 0o400
const SPARE_KIB = 1024

/** A file system of its own in memory, which only root enters; what lies in it is shown elsewhere file by file. */
const MAKE_ROOM = `set -eu
mkdir -p -- "$1"
mount -t tmpfs -o "mode=0700,size=$2k" wrenn "$1"`
const SHOW_FILE = `set -eu
chown "$3" "$1"
chmod "$4" "$1"
mkdir -p "$(dirname "$2")"
if [ ! -e "$2" ]; then : > "$2"; echo made; fi
mount -o bind "$1" "$2"`
const SHOW_FOLDER = `set -eu
mkdir -p "$1"
if [ ! -d "$2" ]; then mkdir -p "$2"; echo made; fi
mount -o bind "$1" "$2"`
const HIDE = `set -eu
umount -l "$1"
if [ "$2" = made ]; then rm -rf "$1"; fi`
const CLEAR = `set -eu
if [ "$2" = tmpfs ]; then umount -l "$1"; fi
rm -rf "$1"`

/** What a step finds beside its own. */
export interface StepView {
  readonly envs: Readonly<Record<string, string>>
  /** What its log must not show. */
  readonly mask: SecretMask
}

type Guest = Pick<BuildGuest, 'answer' | 'upload'>

/**
 * Does a step while its secrets and its empty folders are there, and takes them away afterwards; not when it throws, for then the guest is
 * of no use any more. Secrets are in memory alone: a guest that had some is started anew before anything of it is kept.
 */
export async function withMounts(
  guest: Guest,
  { secrets = [], scratch = [] }: BuildStep,
  secretOf: (id: string) => string,
  task: (view: StepView) => Promise<void>,
): Promise<void> {
  const id = randomBytes(8).toString('hex')
  const room = `/run/.wrenn-secrets-${id}`
  const values = new Map(secrets.map((secret) => [secret.id, Buffer.from(secretOf(secret.id))]))
  const files = secrets.filter(({ path }) => path !== undefined)
  // No UndoStack, which would be unwound when the step throws, too.
  const undo: (() => Promise<unknown>)[] = []
  // Before secrets, which may be shown in one.
  for (const [index, path] of scratch.entries()) {
    const place = `${PLACES}/.wrenn-scratch-${id}-${index}`
    const made = await sh(guest, SHOW_FOLDER, below(place), below(path))
    undo.push(() => sh(guest, CLEAR, below(place), 'folder'))
    undo.push(() => sh(guest, HIDE, below(path), made))
  }
  if (files.length > 0) {
    await sh(guest, MAKE_ROOM, below(room), String(roomKib(files.map((secret) => values.get(secret.id)?.length ?? 0))))
    undo.push(() => sh(guest, CLEAR, below(room), 'tmpfs'))
  }
  for (const [index, secret] of files.entries()) {
    const value = values.get(secret.id) ?? Buffer.alloc(0)
    await guest.upload(`${room}/${index}`, Readable.from([value], { objectMode: false }))
    const made = await showFile(guest, `${room}/${index}`, secret)
    undo.push(() => sh(guest, HIDE, below(secret.path ?? ''), made))
  }
  const envs = secrets.flatMap(({ id: secretId, env }) =>
    env === undefined ? [] : [[env, String(values.get(secretId))] as const],
  )
  await task({ envs: Object.fromEntries(envs), mask: new SecretMask([...values.values()].map(String)) })
  for (const each of undo.reverse()) await each()
}

/** Room for files of these sizes, each by whole pages, and for what the file system itself takes. */
function roomKib(sizes: readonly number[]): number {
  return sizes.reduce((sum, bytes) => sum + 4 * Math.ceil(bytes / 4096) + 4, SPARE_KIB)
}

async function showFile(guest: Guest, file: string, { path = '', owner = ROOT, mode = MODE }: StepSecret) {
  return await sh(guest, SHOW_FILE, below(file), below(path), owner, mode.toString(8))
}

async function sh(guest: Guest, script: string, ...args: readonly string[]): Promise<string> {
  const printed = await guest.answer({ cmd: '/bin/sh', args: ['-c', script, 'mounts', ...args] }, SMALL_ANSWER_BYTES)
  return printed.toString().trim()
}
