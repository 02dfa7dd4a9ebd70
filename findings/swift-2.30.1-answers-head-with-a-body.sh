#!/usr/bin/env bash
# Swift 2.30.1 of Debian 12 answers an S3 HEAD of an object that is not there with the end of a chunked body.
#
# Expected: the answer to a HEAD ends with the empty line after its header fields, whatever these say of a body (RFC 9112 §6.3), and has no
# content (RFC 9110 §9.3.2). S3's own way to ask whether an object is there is this request.
# Seen (swift 2.30.1-0+deb12u1 and u3, python3-eventlet 0.33.1-4): `404` with `Transfer-Encoding: chunked`, and behind the empty line the bytes
# `0\r\n\r\n`. On a connection that is kept they are the beginning of the next answer. A HEAD of an object that is there ends as it should.
# Why it matters: each such question costs its connection (curl: "Excess found"). In Node.js 20 the request that was answered fails afterwards
# ("Parse Error: Expected HTTP/"), as an event `error` that ends a program which no longer listens for one. Whoever looks for what need not
# be uploaded again asks this most of the time.
# The product asks for an object's first byte instead (`has` in packages/object-store/src/s3-store.ts; the suite runs on Swift).
#
# Needs apt, dpkg-deb and Node.js; changes nothing of the host's apt. Ends with 0 while the behaviour is as described, with 1 when
# it has changed, with 2 when it could not be tried, as when the mirror has other versions by now.
set -euo pipefail
swift='2.30.1-0+deb12u1'
eventlet='0.33.1-4'
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill -KILL -- "-$server" || true; rm -rf "$folder"' EXIT
cd "$folder"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/$/ && !n++')
mkdir -p lists/partial archives/partial root devices/disk
: >status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian/} bookworm main" >sources.list
apt=(apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=/nonexistent -o Dir::State::Lists="$folder/lists"
  -o Dir::State::status="$folder/status" -o Dir::Cache="$folder" -o Dir::Cache::archives="$folder/archives" -o APT::Architecture=amd64
  -o APT::Sandbox::User=root -o Debug::NoLocking=1)
"${apt[@]}" update || exit 2
packages=("python3-eventlet=$eventlet")
for part in proxy account container object; do packages+=("swift-$part=$swift"); done
"${apt[@]}" -y --no-install-recommends --download-only install "python3-swift=$swift" "${packages[@]}" || exit 2
for package in archives/*.deb; do dpkg-deb -x "$package" root; done
library_path=$(find "$folder/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
loader=$(find "$folder/root" -name 'ld-linux-x86-64.so.2' | head -n 1)
export PYTHONHOME="$folder/root/usr" PYTHONPATH="$folder/root/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1

# Four free ports, for the three stores and for the one that is asked.
read -r -a ports < <(node -e '
const servers = [0, 1, 2, 3].map(() => require("node:net").createServer().listen(0, "127.0.0.1"))
setTimeout(() => { console.log(servers.map((one) => one.address().port).join(" ")); process.exit() }, 100)')
settings() {
  printf '[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = %s\nworkers = 0\nuser = %s\nswift_dir = %s\n' "$2" "$(id -un)" "$folder"
  printf 'devices = %s/devices\nmount_check = false\n[app:%s-server]\nuse = egg:swift#%s\n' "$folder" "$1" "$1"
  printf 'account_autocreate = true\n[pipeline:main]\npipeline = %s\n' "${3:-$1-server}"
}
settings account "${ports[0]}" >account.conf
settings container "${ports[1]}" >container.conf
settings object "${ports[2]}" >object.conf
{
  settings proxy "${ports[3]}" 'catch_errors cache listing_formats bulk s3api tempauth copy slo dlo proxy-server'
  for filter in catch_errors listing_formats bulk s3api copy slo dlo; do printf '[filter:%s]\nuse = egg:swift#%s\n' "$filter" "$filter"; done
  printf '[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1\n'
  printf '[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = secret .admin\n'
} >proxy.conf
printf '[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n' >swift.conf
cat >server.py <<'PY'
import os, sys
from swift.common import utils
folder, ports = sys.argv[1], dict(zip(('account', 'container', 'object', 'proxy'), sys.argv[2:]))
utils.set_swift_dir(folder)
from swift.common.ring import RingBuilder
from swift.common.wsgi import run_wsgi
for name in ('account', 'container', 'object'):
    ring = RingBuilder(1, 1, 0)
    ring.add_dev(dict(region=1, zone=1, ip='127.0.0.1', port=int(ports[name]), device='disk', weight=1))
    ring.rebalance()
    ring.get_ring().save(os.path.join(folder, name + '.ring.gz'))
for name in ports:
    if os.fork() == 0:
        run_wsgi(os.path.join(folder, name + '.conf'), name + '-server')
        os._exit(1)
os.wait()
PY
python=("$loader" --library-path "$library_path" root/usr/bin/python3.11)
"${python[@]}" -c 'import eventlet, swift' || exit 2
setsid "${python[@]}" server.py "$folder" "${ports[@]}" >server.log 2>&1 &
server=$!
disown

cat >ask.cjs <<'JS'
const { createHmac } = require('node:crypto')
const http = require('node:http')
const net = require('node:net')
const ports = process.argv.slice(2).map(Number)
const port = ports.at(-1)
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

function signed(method, path) {
  const date = new Date().toUTCString()
  const signature = createHmac('sha1', 'secret').update(`${method}\n\n\n${date}\n${path}`).digest('base64')
  return { host: `127.0.0.1:${port}`, date, authorization: `AWS test:tester:${signature}` }
}

/** The status; what the request fails with within a second of its answer is in the list. */
async function ask(method, path, body = '', failures = []) {
  const agent = new http.Agent({ keepAlive: true })
  const headers = { ...signed(method, path), 'content-length': Buffer.byteLength(body) }
  const status = await new Promise((resolve, reject) => {
    const request = http.request({ agent, host: '127.0.0.1', port, method, path, headers }, (answer) => {
      answer.resume()
      resolve(answer.statusCode)
    })
    request.on('error', (error) => {
      failures.push(error.message)
      reject(error) // does nothing once it was answered
    })
    request.end(body)
  })
  await pause(1_000)
  agent.destroy()
  return status
}

/** What comes behind the header fields of an answer within two seconds. */
async function bytesBehindHead(path) {
  const socket = net.connect(port, '127.0.0.1')
  const lines = Object.entries(signed('HEAD', path)).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.write(`HEAD ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)
  let all = ''
  socket.on('data', (bytes) => (all += bytes.toString('latin1')))
  await pause(2_000)
  socket.destroy()
  return all.slice(all.indexOf('\r\n\r\n') + 4)
}

function isOpen(one) {
  return new Promise((resolve) => {
    const socket = net.connect(one, '127.0.0.1', () => resolve(true) || socket.destroy())
    socket.on('error', () => resolve(false))
  })
}

async function main() {
  for (const one of ports) for (let tries = 0; !(await isOpen(one)); tries++) {
    if (tries === 300) process.exit(2)
    await pause(100)
  }
  const made = [await ask('PUT', '/bucket'), await ask('PUT', '/bucket/there', 'content')]
  if (made.some((status) => status !== 200)) process.exit(2)
  let isAsDescribed = true
  for (const [path, wanted] of [['/bucket/there', 200], ['/bucket/absent', 404]]) {
    const failures = []
    const status = await ask('HEAD', path, '', failures)
    const behind = await bytesBehindHead(path)
    console.log(`HEAD ${path}: ${status}, behind the head ${JSON.stringify(behind)}, afterwards: ${failures.join() || 'nothing'}`)
    const isWrong = behind === '0\r\n\r\n' && failures.some((text) => text.includes('Expected HTTP/'))
    isAsDescribed &&= status === wanted && isWrong === (wanted === 404)
  }
  process.exit(isAsDescribed ? 0 : 1)
}
main().catch((error) => {
  console.error(error)
  process.exit(2)
})
JS
code=0
node ask.cjs "${ports[@]}" || code=$?
[ "$code" != 2 ] || tail -n 5 server.log >&2
exit "$code"
