import { randomBytes } from 'node:crypto'
import { Readable } from 'node:stream'
import type { BuildFiles } from './build-files.js'
import type { BuildGuest } from './guest.js'

const ANSWER_BYTES = 64 * 1024
const PLACES = '/var/tmp'

/**
 * Gathers what a `COPY` names, which may be a pattern, under its own path in a folder of its own: by hard links, which take no space. A link
 * that is named itself stands for what it leads to.
 */
const GATHER = `set -eu
tree=$1 src=$2 found=0
mkdir -p "$tree"
IFS=
for one in $src; do
  [ -e "$one" ] || continue
  found=1
  mkdir -p "$tree/$(dirname "$one")"
  cp -alH "$one" "$tree/$one" 2>/dev/null || { rm -rf "$tree/$one"; cp -aH "$one" "$tree/$one"; }
done
if [ $found = 0 ]; then echo "there is no /$src in the stage" >&2; exit 1; fi`

/** Keeps what a `COPY` of another stage takes from this one, as files of the team by that hash. @throws AppError `build_failed` when there is nothing, `too_large`, … */
export async function keepStageFiles(
  guest: BuildGuest,
  files: BuildFiles,
  source: string,
  hash: string,
): Promise<void> {
  const place = `${PLACES}/.wrenn-stage-${randomBytes(8).toString('hex')}`
  const gather = ['-c', GATHER, 'gather', `.${place}/tree`, source]
  await guest.answer({ cmd: '/bin/mkdir', args: ['-p', '-m', '700', `.${place}`] }, ANSWER_BYTES)
  await guest.answer({ cmd: '/bin/sh', args: gather }, ANSWER_BYTES)
  const { teamId } = guest.capsule
  await files.receive({ teamId, hash }, Readable.from(guest.archive(`${place}/tree`), { objectMode: false }), undefined)
  await guest.answer({ cmd: '/bin/rm', args: ['-rf', `.${place}`] }, ANSWER_BYTES)
}
