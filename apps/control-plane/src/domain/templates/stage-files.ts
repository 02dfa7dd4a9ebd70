import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import type { BuildFiles } from './build-files.js'
import { type BuildGuest, below } from './guest.js'

/**
 * Gathers what a `COPY` names, which may be a pattern, under its own path in a folder of its own: by hard links, which take no space. A link
 * that is named itself stands for what it leads to.
 */
const GATHER = `set -eu
tree=$1 src=$2 found=0
mkdir -p "$tree"
IFS=
for one in $src; do
  case "./$one/" in "\${tree%tree}") continue ;; esac
  [ -e "$one" ] || continue
  found=1
  mkdir -p "$tree/$(dirname "$one")"
  cp -alH "$one" "$tree/$one" 2>/dev/null || { rm -rf "$tree/$one"; cp -aH "$one" "$tree/$one"; }
done
if [ $found = 0 ]; then echo "there is no /$src in the stage" >&2; exit 1; fi`

/**
 * Keeps what a `COPY` of another stage takes from this one, as files of the team by that hash.
 * @throws AppError `build_failed` when there is nothing, `too_large`, `engine_failure` when the stage went back meanwhile, …
 */
export async function keepStageFiles(
  guest: Pick<BuildGuest, 'answer' | 'archive' | 'capsule' | 'requireUnbroken'>,
  files: Pick<BuildFiles, 'receive'>,
  source: string,
  hash: string,
): Promise<void> {
  // Beside all that a stage has: what is copied may be any folder of it.
  const place = `/.wrenn-stage-${randomBytes(8).toString('hex')}`
  const gather = ['-c', GATHER, 'gather', below(`${place}/tree`), source]
  await guest.answer({ cmd: '/bin/sh', args: ['-c', 'mkdir -m 700 "$0"', below(place)] })
  await guest.answer({ cmd: '/bin/sh', args: gather })
  const tar = Readable.from(unbroken(guest, `${place}/tree`), { objectMode: false })
  try {
    await files.receive({ teamId: guest.capsule.teamId, hash }, tar, undefined)
  } finally {
    tar.destroy()
  }
  await guest.answer({ cmd: '/bin/sh', args: ['-c', 'rm -rf "$0"', below(place)] })
}

/** Fails at its end, before anybody takes it for whole, unless the guest is still what its steps made of it. */
async function* unbroken(guest: Pick<BuildGuest, 'archive' | 'requireUnbroken'>, path: string) {
  yield* guest.archive(path)
  await guest.requireUnbroken()
}
