#!/usr/bin/env bash
# skopeo 1.9.3 of Debian 12 copies an image of one architecture, whatever `--override-arch` asks for.
#
# Expected: with `--override-arch arm64` an image whose config says amd64 is refused, or copied with a warning. skopeo(1) says
# that the option replaces the architecture of the machine "for choosing images", not what happens where there is no choice.
# Seen (skopeo 1.9.3+ds1-1+b10): where the name leads to an index that has amd64 alone, skopeo refuses ("no image found in image
# index for architecture arm64"). Where it leads straight to the same image, in a layout as in a registry, the image for amd64 is
# copied and the exit code is 0; standard error stays empty, and standard output names no architecture.
# 1.18.0 of Debian 13 and 1.22.0 of unstable do the same.
# Why it matters: whether the answer is an error or an image for another machine depends on how the image was pushed. Who relies on
# the option learns of it from the first program of the image that does not start.
# The product gives no such option: it chooses from an index itself, and compares the `architecture` of the copied config with its
# own before anything is unpacked (`parseImageConfig` in apps/host-agent/src/host/images/oci/manifest.ts, `image_not_usable`).
#
# Needs apt, dpkg-deb and Node.js; changes nothing of the host's apt. Ends with 0 while the behaviour is as described, with 1 when
# it has changed, with 2 when it could not be tried, as when the mirror has another version by now.
set -euo pipefail
version='skopeo=1.9.3+ds1-1+b10'
libraries=(libc6 libgpgme11 libassuan0 libgpg-error0 libdevmapper1.02.1 libselinux1 libpcre2-8-0 libudev1)
folder=$(mktemp -d)
registry=
trap '[ -z "$registry" ] || kill "$registry" || true; rm -rf "$folder"' EXIT
cd "$folder"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ && !n++')
mkdir -p lists/partial archives root source/blobs/sha256
: >status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian/} bookworm main" >sources.list
apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/nonexistent -o Dir::State::Lists="$folder/lists"
  -o Dir::State::status="$folder/status" -o Dir::Cache="$folder" -o APT::Architecture=amd64 -o APT::Sandbox::User=root
  -o Debug::NoLocking=1)
"${apt[@]}" update || exit 2
(cd archives && "${apt[@]}" download "$version" "${libraries[@]}") || exit 2
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
library_path=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
loader=$(find "$folder/root" -name 'ld-linux-x86-64.so.2' | head -n 1)
skopeo() { "$loader" --library-path "$library_path" root/usr/bin/skopeo "$@"; }
# What skopeo remembers of blobs goes into the folder, and not to /var/lib/containers when this runs as root.
export _CONTAINERS_ROOTLESS_UID=1 XDG_DATA_HOME="$folder/data" HOME="$folder"
skopeo --version >/dev/null || exit 2

# Adds a file to the blobs of the layout `source` and prints its descriptor.
descriptor() {
  local digest size
  digest=$(sha256sum "$2" | cut -d ' ' -f 1)
  size=$(stat -c %s "$2")
  cp "$2" "source/blobs/sha256/$digest"
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%d%s}' "$1" "$digest" "$size" "${3:-}"
}
type=application/vnd.oci.image
named() { echo ',"annotations":{"org.opencontainers.image.ref.name":"'"$1"'"}'; }
echo 'a file of the image' >greeting
tar --owner=0 --group=0 -cf layer.tar greeting
gzip -n -k layer.tar
diff_id=$(sha256sum layer.tar | cut -d ' ' -f 1)
echo '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:'"$diff_id"'"]}}' >config.json
config=$(descriptor "$type.config.v1+json" config.json)
layer=$(descriptor "$type.layer.v1.tar+gzip" layer.tar.gz)
echo '{"schemaVersion":2,"mediaType":"'"$type.manifest.v1+json"'","config":'"$config"',"layers":['"$layer"']}' >manifest.json
platform=',"platform":{"os":"linux","architecture":"amd64"}'
single=$(descriptor "$type.manifest.v1+json" manifest.json "$platform$(named single)")
listed=$(descriptor "$type.manifest.v1+json" manifest.json "$platform")
echo '{"schemaVersion":2,"mediaType":"'"$type.index.v1+json"'","manifests":['"$listed"']}' >list.json
list=$(descriptor "$type.index.v1+json" list.json "$(named list)")
echo '{"schemaVersion":2,"manifests":['"$single,$list"']}' >source/index.json
echo '{"imageLayoutVersion":"1.0.0"}' >source/oci-layout

# The same two names in a registry of this machine, which only reads.
cat >registry.cjs <<'JS'
const { createHash } = require('node:crypto')
const { existsSync, readFileSync, renameSync, writeFileSync } = require('node:fs')
const server = require('node:http').createServer((request, response) => {
  const [, kind, wanted] = /^\/v2\/image\/(manifests|blobs)\/([a-z]+|sha256:[0-9a-f]{64})$/.exec(request.url) ?? []
  if (request.url === '/v2/') return response.end('{}')
  const file = { single: 'manifest.json', list: 'list.json' }[wanted] ?? `source/blobs/sha256/${wanted?.slice('sha256:'.length)}`
  if (kind === undefined || !existsSync(file)) return response.writeHead(404).end()
  const bytes = readFileSync(file)
  const type = kind === 'blobs' ? 'application/octet-stream' : JSON.parse(bytes).mediaType
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  response.writeHead(200, { 'content-type': type, 'content-length': bytes.length, 'docker-content-digest': digest })
  response.end(request.method === 'HEAD' ? undefined : bytes)
})
server.listen(0, '127.0.0.1', () => {
  writeFileSync('port.new', String(server.address().port))
  renameSync('port.new', 'port')
})
JS
node registry.cjs &
registry=$!
for _ in $(seq 100); do [ -e port ] && break; sleep 0.1; done
[ -e port ] || exit 2

# Asks for arm64 and prints what came of it.
attempt() {
  local name=$1 copied=0 config
  shift
  skopeo --insecure-policy --override-arch arm64 --tmpdir "$folder" copy "$@" "oci:$name:image" >told 2>said || copied=$?
  if [ "$copied" != 0 ]; then
    echo "refused: $(grep -o 'no image found in image index for architecture [a-z0-9]*' said || cat said)"
  else
    config=$(skopeo inspect --config --raw "oci:$name:image")
    grep -iE 'amd64|arm64' told >>said || true
    echo "copied for $(grep -o '"architecture":"[^"]*"' <<<"$config" | cut -d '"' -f 4), $(stat -c %s said) bytes said of it"
  fi
}
host="docker://127.0.0.1:$(cat port)/image"
# A copy that is not asked for an architecture of its own shows that the registry works.
skopeo --insecure-policy --override-arch amd64 copy --quiet --src-tls-verify=false "$host:list" oci:control:image || exit 2
refused='refused: no image found in image index for architecture arm64'
taken='copied for amd64, 0 bytes said of it'
declare -A seen=(
  ['index in a layout']=$(attempt layout-list oci:source:list)
  ['index in a registry']=$(attempt registry-list --src-tls-verify=false "$host:list")
  ['image in a layout']=$(attempt layout-single oci:source:single)
  ['image in a registry']=$(attempt registry-single --src-tls-verify=false "$host:single")
)
code=0
for place in 'index in a layout' 'index in a registry' 'image in a layout' 'image in a registry'; do
  echo "$place: ${seen[$place]}"
  case $place in index*) expected=$refused ;; *) expected=$taken ;; esac
  [ "${seen[$place]}" = "$expected" ] || code=1
done
exit "$code"
