#!/usr/bin/env bash
# QEMU 10.0.13 of Debian 13 gives a virtio queue 1,024 entries, whatever the device's `queue-size` says.
#
# Expected: `-device virtio-blk-pci,queue-size=256` (256 is also the default) gives queue 0 of the device 256 entries; the property
# is part of what a saved state needs on the other side.
# Seen (qemu-system-x86 1:10.0.13+ds-0+deb13u1, machine type pc-q35-7.2, TCG): 1,024 entries. 7.2.22 (Debian 12) and 11.1.3
# (Debian unstable) give 256 for the same command line. With queues of 1,024 entries in use, 11.1.3 refuses a guest that was
# booted and saved by 10.0.13 ("VQ 0 vring.num 1024 exceeds allocated max 256"), while states of 7.2.22 and 11.1.3 load everywhere.
# Why it matters: a host that goes from Debian 13 to a later release cannot load the guests that it saved before.
# The product tests each pair of versions (packages/vmm/conformance/versions.test.ts) and names the refusal `state_not_loadable`
# instead of giving the saved state up (docs/adr/0007-machine-types.md).
#
# Needs apt, dpkg-deb and Node.js; changes nothing of the host's apt. Ends with 0 while the behaviour is as described, with 1 when
# it has changed, with 2 when it could not be tried, as when the mirror has another version by now.
set -euo pipefail
version='1:10.0.13+ds-0+deb13u1'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ && !n++')
mkdir -p lists/partial archives/partial root
: >status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian/} trixie main" >sources.list
apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/nonexistent -o Dir::State::Lists="$folder/lists"
  -o Dir::State::status="$folder/status" -o Dir::Cache="$folder" -o Dir::Cache::archives="$folder/archives" -o APT::Architecture=amd64
  -o APT::Sandbox::User=root -o Debug::NoLocking=1)
"${apt[@]}" update || exit 2
"${apt[@]}" -y --no-install-recommends --download-only install "qemu-system-x86=$version" || exit 2
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
library_path=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
loader=$(find "$folder/root" -name 'ld-linux-x86-64.so.2' | head -n 1)

cat >queue.cjs <<'JS'
const { spawn } = require('node:child_process')
const { createInterface } = require('node:readline')
const [, , loader, libraries, root] = process.argv
const WANTED = 256
const disk = 'disk.raw'
require('node:fs').writeFileSync(disk, Buffer.alloc(1 << 20))
const qemu = spawn(loader, [
  '--library-path', libraries, `${root}/usr/bin/qemu-system-x86_64`, '-L', `${root}/usr/share/qemu`, '-L', `${root}/usr/share/seabios`,
  '-S', '-nodefaults', '-no-user-config', '-display', 'none', '-accel', 'tcg', '-machine', 'pc-q35-7.2', '-m', '128',
  '-blockdev', `driver=file,node-name=disk,filename=${disk}`,
  '-device', `virtio-blk-pci,drive=disk,id=block,queue-size=${WANTED},num-queues=1,disable-legacy=on`, '-qmp', 'stdio',
], { stdio: ['pipe', 'pipe', 'inherit'] })
qemu.on('error', () => process.exit(2))
setTimeout(() => { qemu.kill('SIGKILL'); process.exit(2) }, 60_000).unref()
const ask = (execute, more = {}) => qemu.stdin.write(`${JSON.stringify({ execute, id: execute, ...more })}\n`)
let version = ''
createInterface(qemu.stdout).on('line', (line) => {
  const message = JSON.parse(line)
  if (message.QMP) ask('qmp_capabilities')
  else if (message.error) { console.error(message.error.desc); qemu.kill(); process.exit(2) }
  else if (message.id === 'qmp_capabilities') ask('query-version')
  else if (message.id === 'query-version') {
    version = message.return.package
    ask('x-query-virtio-queue-status', { arguments: { path: '/machine/peripheral/block/virtio-backend', queue: 0 } })
  } else if (message.id === 'x-query-virtio-queue-status') {
    const seen = message.return['vring-num']
    console.log(`QEMU ${version}: queue-size=${WANTED} gives a queue of ${seen} entries`)
    qemu.kill()
    process.exit(seen === 1024 ? 0 : 1)
  }
})
JS
node queue.cjs "$loader" "$library_path" "$folder/root"
