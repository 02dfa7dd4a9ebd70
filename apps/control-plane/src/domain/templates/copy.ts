import { randomBytes } from 'node:crypto'
import { posix } from 'node:path'
import type { Readable } from 'node:stream'
import type { BuildStep, ProcessDefaults } from '../../store/schema.js'
import { type BuildGuest, below, PLACES } from './guest.js'

/**
 * Puts uploaded files where a step wants them, as `COPY` of a Dockerfile does: of a folder its content, a file under the name of the
 * destination, or into it when that ends in a slash or is a folder; what matches a pattern goes into the destination under its own names.
 * Folders that are there keep their owner and mode. All paths are relative to `/`, where it runs. What an image may lack, the platform has.
 */
const SCRIPT = `set -euo pipefail
case "$(tar --version 2>/dev/null || true)" in
  *GNU*) ;;
  *) tar() { /.wrenn/lib/ld-linux-x86-64.so.2 --library-path /.wrenn/lib /.wrenn/bin/tar "$@"; } ;;
esac
shopt -s dotglob globstar
stage=$1 src=$2 dest=$3 owner=$4 mode=$5 dirmode=$6
missing=
for tool in rm mkdir mv cp chown chmod find; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
if [ -n "$missing" ]; then
  box=/.wrenn/bin/busybox
  $box mkdir -- "$stage/tools"
  for tool in $missing; do $box ln -s "$box" "$stage/tools/$tool"; done
  PATH=$PATH:\${PWD%/}/$stage/tools
fi
trap 'rm -rf -- "$stage"' EXIT
mkdir -- "$stage/tree" "$stage/picked"
if [ -n "$owner" ]; then
  tar --extract --file="$stage/files.tar" --directory="$stage/\${7-tree}" --no-same-owner
else
  tar --extract --file="$stage/files.tar" --directory="$stage/\${7-tree}" --numeric-owner --same-owner --preserve-permissions
fi
rm -- "$stage/files.tar"
from=$stage/tree/$src
if [ -d "$from" ] && [ ! -L "$from" ]; then
  pick=$from
elif [ -e "$from" ] || [ -L "$from" ]; then
  pick=$stage/picked
  name=\${from##*/}
  if [ "\${dest%/}" = "$dest" ] && [ ! -d "$dest" ]; then name=\${dest##*/} dest=\${dest%/*}; fi
  mv -- "$from" "$pick/$name"
else
  pick=$stage/picked
  found=0
  cd -- "$stage/tree"
  IFS=
  for one in $src; do
    if [ ! -e "$one" ] && [ ! -L "$one" ]; then continue; fi
    found=$((found + 1)) last=\${one##*/}
    if [ -n "\${7-}" ] && [ -d "$one" ] && [ ! -L "$one" ]; then cp -a -- "$one/." "$OLDPWD/$pick/"; last=
    else mv -- "$one" "$OLDPWD/$pick/"; fi
  done
  cd -- "$OLDPWD"
  if [ -n "\${7-}" ] && [ $found = 1 ] && [ -n "$last" ] && [ "\${dest%/}" = "$dest" ] && [ ! -d "$dest" ]; then
    mv -- "$pick/$last" "$stage/renamed"
    mv -- "$stage/renamed" "$pick/\${dest##*/}"
    dest=\${dest%/*}
  fi
  if [ $found = 0 ]; then echo "there is no $src among the uploaded files" >&2; exit 1; fi
fi
if [ -n "$owner" ]; then chown -hR -- "$owner" "$pick"; fi
if [ -n "$mode" ]; then
  find "$pick" -mindepth 1 -type d -exec chmod -- "$dirmode" {} +
  find "$pick" -type f -exec chmod -- "$mode" {} +
fi
if [ ! -d "$dest" ]; then mkdir -p -- "$dest"; if [ -n "$owner" ]; then chown -- "$owner" "$dest"; fi; fi
tar --create --numeric-owner --directory="$pick" . |
  tar --extract --numeric-owner --same-owner --preserve-permissions --no-overwrite-dir --keep-directory-symlink --directory="$dest"
`

/**
 * Copies the uploaded files of a step; they belong to the user of the build, unless the step says otherwise. Those of another stage, whose
 * tar has them in a folder, belong to whom they did there.
 */
export async function copyFiles(
  guest: Pick<BuildGuest, 'answer' | 'upload'>,
  { args: [src = '.', dest = '.', owner = '', mode = ''], stage: source }: BuildStep,
  { user, cwd }: ProcessDefaults,
  files: Readable,
): Promise<void> {
  const stage = `${PLACES}/.wrenn-copy-${randomBytes(8).toString('hex')}`
  await guest.answer({ cmd: '/bin/sh', args: ['-c', 'mkdir -p -m 700 -- "$0"', below(stage)] })
  await guest.upload(`${stage}/files.tar`, files)
  const whose = owner === '' && source === undefined ? user : owner
  const args = [
    below(stage),
    posix.normalize(src).replace(/\/+$/, ''),
    destinationOf(dest, cwd),
    whose.includes(':') || whose === '' ? whose : `${whose}:`,
    mode,
    mode === '' ? '' : folderMode(mode),
    ...(source === undefined ? [] : ['.']),
  ]
  await guest.answer({ cmd: '/bin/bash', args: ['-c', SCRIPT, 'copy', ...args] })
}

/** Who may read a folder may enter it. */
function folderMode(mode: string): string {
  const bits = Number.parseInt(mode, 8)
  return (bits | ((bits & 0o444) >> 2)).toString(8)
}

/** A slash at its end, and `.`, say that it is a folder. */
function destinationOf(dest: string, cwd: string): string {
  const isFolder = /(?:^|\/)\.{0,2}$/.test(dest)
  const path = posix.resolve(cwd, dest)
  return below(isFolder && path !== '/' ? `${path}/` : path)
}
