import { randomBytes } from 'node:crypto'
import { posix } from 'node:path'
import { Readable } from 'node:stream'
import type { BuildStep, ProcessDefaults } from '../../store/schema.js'
import type { OpenedFiles } from './build-files.js'
import { type BuildGuest, below, PLACES } from './guest.js'

/**
 * Puts uploaded files where a step wants them, as `COPY` of a Dockerfile does: of a folder its content, a file under the name of the
 * destination, or into it when that ends in a slash or is a folder; what matches a pattern goes into the destination under its own names.
 * Folders that are there keep their owner and mode. All paths are relative to `/`, where it runs. What an image may lack, the platform has.
 * What was unpacked is moved, not copied: of a whole folder that is not there yet, by one rename.
 */
const SCRIPT = `set -euo pipefail
case "$(tar --version 2>/dev/null || true)" in
  *GNU*) ;;
  *) tar() { /.wrenn/lib/ld-linux-x86-64.so.2 --library-path /.wrenn/lib /.wrenn/bin/tar "$@"; } ;;
esac
shopt -s dotglob globstar
stage=$1 src=$2 dest=$3 owner=$4 mode=$5 dirmode=$6
missing=
for tool in rm rmdir mkdir mv cp chown chmod find; do command -v "$tool" >/dev/null || missing="$missing $tool"; done
if [ -n "$missing" ]; then
  box=/.wrenn/bin/busybox
  $box mkdir -- "$stage/tools"
  for tool in $missing; do $box ln -s "$box" "$stage/tools/$tool"; done
  PATH=$PATH:\${PWD%/}/$stage/tools
fi
trap 'rm -rf -- "$stage"' EXIT
mkdir -p -- "$stage/tree" "$stage/picked"
if [ ! -e "$stage/files.tar" ]; then :
elif [ -n "$owner" ]; then
  tar --extract --file="$stage/files.tar" --directory="$stage/\${7-tree}" --no-same-owner
else
  tar --extract --file="$stage/files.tar" --directory="$stage/\${7-tree}" --numeric-owner --same-owner --preserve-permissions
fi
rm -f -- "$stage/files.tar"
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
case $owner in
  '' | root: | root:root | 0: | 0:0) ;; # whose it is already
  *) chown -hR -- "$owner" "$pick" ;;
esac
if [ -n "$mode" ]; then
  find "$pick" -mindepth 1 -type d -exec chmod -- "$dirmode" {} +
  find "$pick" -type f -exec chmod -- "$mode" {} +
fi
if [ ! -d "$dest" ]; then mkdir -p -- "$dest"; if [ -n "$owner" ]; then chown -- "$owner" "$dest"; fi; fi
merge() {
  local one there batch=()
  for one in "$1"/*; do
    if [ ! -e "$one" ] && [ ! -L "$one" ]; then continue; fi
    there=$2/\${one##*/}
    if [ -d "$one" ] && [ ! -L "$one" ]; then
      if [ -d "$there" ]; then merge "$one" "$there"; continue; fi
      if [ -e "$there" ] || [ -L "$there" ]; then rm -f -- "$there"; fi
    elif [ -L "$there" ]; then rm -f -- "$there"
    elif [ -d "$there" ]; then rmdir -- "$there"
    fi
    batch+=("$one")
    if [ \${#batch[@]} = 200 ]; then mv -f -- "\${batch[@]}" "$2/"; batch=(); fi
  done
  if [ \${#batch[@]} != 0 ]; then mv -f -- "\${batch[@]}" "$2/"; fi
}
merge "$pick" "\${dest%/}"
`

/** From here on files are unpacked while they come, rather than from a tar that the guest's disk has, too. */
const LARGE_BYTES = 256 * 2 ** 20

/**
 * Copies the uploaded files of a step; they belong to the user of the build, unless the step says otherwise. Those of another stage, whose
 * tar has them in a folder, belong to whom they did there.
 */
export async function copyFiles(
  guest: Pick<BuildGuest, 'answer' | 'upload' | 'unpack'>,
  { args: [src = '.', dest = '.', owner = '', mode = ''], stage: source }: BuildStep,
  { user, cwd }: ProcessDefaults,
  { stream: files, sizeBytes }: Omit<OpenedFiles, 'sha256'>,
): Promise<void> {
  const stage = `${PLACES}/.wrenn-copy-${randomBytes(8).toString('hex')}`
  await guest.answer({ cmd: '/bin/sh', args: ['-c', 'mkdir -p -m 700 -- "$0"', below(stage)] })
  const isLarge = source === undefined && sizeBytes >= LARGE_BYTES
  const opened = isLarge ? await open(files) : { isTar: false, files }
  // What is large lies in the guest once. The rest is there sooner as a file, and with owners or compressed it has to be one.
  if (opened.isTar) await guest.unpack(`${stage}/tree`, opened.files)
  else await guest.upload(`${stage}/files.tar`, opened.files)
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

const BLOCK = 512
const MAGIC_AT = 257
const MAGIC = 'ustar'

/** Files as they come, and whether they come as a tar that is not compressed. */
async function open(files: Readable): Promise<{ readonly isTar: boolean; readonly files: Readable }> {
  const pieces: AsyncIterator<unknown> = files[Symbol.asyncIterator]()
  const begin: Buffer[] = []
  let size = 0
  while (size < BLOCK) {
    const next = await pieces.next()
    if (next.done === true) break
    const bytes = Buffer.from(next.value as Uint8Array) // of a file, which says no encoding
    begin.push(bytes)
    size += bytes.length
  }
  const head = Buffer.concat(begin)
  async function* all() {
    yield head
    yield* { [Symbol.asyncIterator]: () => pieces }
  }
  const isTar = head.toString('latin1', MAGIC_AT, MAGIC_AT + MAGIC.length) === MAGIC
  return { isTar, files: Readable.from(all(), { objectMode: false }) }
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
