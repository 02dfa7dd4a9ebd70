#!/usr/bin/env bash
# umoci 0.4.7 of Debian 12 does not unpack the layouts that skopeo 1.9.3 of Debian 12 makes of images with zstd layers.
#
# Expected: `skopeo copy <image> oci:<layout>:<tag>` and then `umoci raw unpack` give the image's files, which is the example of
# umoci-raw-unpack(1), also for layers of the type `application/vnd.oci.image.layer.v1.tar+zstd`. Both programs are built with
# image-spec 1.1.0~rc2 (`Built-Using` of both packages), which defines that type; it asks nobody to support it.
# Seen (skopeo 1.9.3+ds1-1+b10, umoci 0.4.7+ds-3+b7): skopeo leaves the layer as it is and umoci refuses the layout ("blob is not
# correct mediatype: application/vnd.oci.image.layer.v1.tar+zstd"). `--dest-decompress`, documented for `dir:` alone, is taken for
# `oci:` too, changes nothing of this and says nothing. With `--dest-compress-format gzip` skopeo writes gzip, and umoci unpacks it.
# The pair of Debian 13 (1.18.0, 0.4.7) does the same, but warns of `--dest-decompress`; umoci 0.6.0 of unstable unpacks all three.
# Why it matters: registries have images of both kinds and the name does not tell which; whoever pairs the two packages can fetch
# such an image and not unpack it.
# The product always copies with `--dest-compress-format gzip` (apps/host-agent/src/host/images/oci/registry.ts).
#
# Needs apt and dpkg-deb; changes nothing of the host's apt. Ends with 0 while the behaviour is as described, with 1 when it has
# changed, with 2 when it could not be tried, as when the mirror has other versions by now.
set -euo pipefail
versions=('skopeo=1.9.3+ds1-1+b10' 'umoci=0.4.7+ds-3+b7' 'zstd=1.5.4+dfsg2-5')
libraries=(libc6 libgpgme11 libassuan0 libgpg-error0 libdevmapper1.02.1 libselinux1 libpcre2-8-0 libudev1 libzstd1 liblz4-1 liblzma5
  zlib1g libgcc-s1 libstdc++6)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ && !n++')
mkdir -p lists/partial archives root source/blobs/sha256
: >status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian/} bookworm main" >sources.list
apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/nonexistent -o Dir::State::Lists="$folder/lists"
  -o Dir::State::status="$folder/status" -o Dir::Cache="$folder" -o APT::Architecture=amd64 -o APT::Sandbox::User=root
  -o Debug::NoLocking=1)
"${apt[@]}" update || exit 2
(cd archives && "${apt[@]}" download "${versions[@]}" "${libraries[@]}") || exit 2
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
library_path=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
loader=$(find "$folder/root" -name 'ld-linux-x86-64.so.2' | head -n 1)
packaged() { "$loader" --library-path "$library_path" "root/usr/bin/$1" "${@:2}"; }
# What skopeo remembers of blobs goes into the folder, and not to /var/lib/containers when this runs as root.
export _CONTAINERS_ROOTLESS_UID=1 XDG_DATA_HOME="$folder/data" HOME="$folder"
for program in skopeo umoci zstd; do packaged "$program" --version >/dev/null || exit 2; done

# Adds a file to the blobs of the layout `source` and prints its descriptor.
descriptor() {
  local digest size
  digest=$(sha256sum "$2" | cut -d ' ' -f 1)
  size=$(stat -c %s "$2")
  cp "$2" "source/blobs/sha256/$digest"
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%d%s}' "$1" "$digest" "$size" "${3:-}"
}
type=application/vnd.oci.image
echo 'a file of the image' >greeting
tar --owner=0 --group=0 -cf layer.tar greeting
packaged zstd -q layer.tar -o layer.tar.zst
diff_id=$(sha256sum layer.tar | cut -d ' ' -f 1)
echo '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:'"$diff_id"'"]}}' >config.json
config=$(descriptor "$type.config.v1+json" config.json)
layer=$(descriptor "$type.layer.v1.tar+zstd" layer.tar.zst)
echo '{"schemaVersion":2,"mediaType":"'"$type.manifest.v1+json"'","config":'"$config"',"layers":['"$layer"']}' >manifest.json
manifest=$(descriptor "$type.manifest.v1+json" manifest.json ',"annotations":{"org.opencontainers.image.ref.name":"image"}')
echo '{"schemaVersion":2,"manifests":['"$manifest"']}' >source/index.json
echo '{"imageLayoutVersion":"1.0.0"}' >source/oci-layout

# Copies the image with these options, unpacks the copy, and prints both outcomes on a line.
attempt() {
  local name=$1 copied=0 kept='nothing' said
  shift
  packaged skopeo --insecure-policy --tmpdir "$folder" copy --quiet "$@" oci:source:image "oci:$name:image" >&2 || copied=$?
  [ "$copied" = 0 ] && kept=$(packaged skopeo inspect --raw "oci:$name:image" | grep -o 'vnd\.oci\.image\.layer[^"]*')
  if ! said=$(packaged umoci raw unpack --rootless --image "$name:image" "$name.rootfs" 2>&1); then
    said=$(grep -o 'blob is not correct mediatype: .*' <<<"$said" || echo "$said")
  elif cmp -s greeting "$name.rootfs/greeting"; then
    said='unpacked'
  else
    said='unpacked something else'
  fi
  echo "skopeo ends with $copied, copies $kept; umoci: $said"
}
zstd=vnd.oci.image.layer.v1.tar+zstd
refused="skopeo ends with 0, copies $zstd; umoci: blob is not correct mediatype: application/$zstd"
taken='skopeo ends with 0, copies vnd.oci.image.layer.v1.tar+gzip; umoci: unpacked'
plain=$(attempt plain)
decompressed=$(attempt decompressed --dest-decompress)
recompressed=$(attempt recompressed --dest-compress-format gzip)
printf '%s\n' "without options: $plain" "--dest-decompress: $decompressed" "--dest-compress-format gzip: $recompressed"
[ "$plain" = "$refused" ] && [ "$decompressed" = "$refused" ] && [ "$recompressed" = "$taken" ] || exit 1
