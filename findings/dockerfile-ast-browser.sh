#!/usr/bin/env bash
# dockerfile-ast 0.7.1 cannot parse anything in a browser: it looks for a byte order mark with `Buffer`.
#
# Expected: it is a parser without dependencies on Node.js, used in browsers by editors; a text is parsed where there is no `Buffer`.
# Seen (Chromium 150, bundled by Vite 8.3.8; Node 20.20.2 without `Buffer`): `ReferenceError: Buffer is not defined` in `Util.isUTF8BOM`,
# for each text.
# Why it matters: `@wrenn/sdk/dockerfile` is for browsers too; the dashboard reads Dockerfiles with it.
# The product gives it another `isUTF8BOM` (packages/sdk/src/dockerfile/instructions.ts; the test beside it has this case).
#
# Ends with 0 while the behaviour is as described, with 1 when it has changed, with 2 when it could not be tried.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --ignore-scripts --no-audit --no-fund --save-exact dockerfile-ast@0.7.1 >/dev/null || exit 2
cat >read.cjs <<'JS'
const { DockerfileParser } = require('dockerfile-ast')
delete globalThis.Buffer
try {
  DockerfileParser.parse('FROM base\n')
  console.log('parsed')
  process.exitCode = 1
} catch (error) {
  console.log(String(error))
  process.exitCode = /Buffer is not defined/.test(String(error)) ? 0 : 1
}
JS
node read.cjs
