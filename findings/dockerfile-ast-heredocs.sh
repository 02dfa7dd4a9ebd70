#!/usr/bin/env bash
# dockerfile-ast 0.7.1 reads valid Dockerfiles otherwise than Docker: here-documents, and blanks in JSON forms.
#
# Expected, by Docker's reference (https://docs.docker.com/reference/dockerfile/#here-documents and #shell-and-exec-form) and BuildKit's
# parser, which takes a word for the begin of a here-document when it is `<<`, perhaps after a number, and a name:
#   1. `RUN echo "x <<EOF y"` has none, as it stands in quotes: the line after it is an instruction of its own.
#   2. `RUN cat 3<<N /dev/fd/3` has one, as in a shell: the lines up to `N` belong to it.
#   3. `CMD ["cat", "a b"]` is parsed as a JSON array: its second string has a blank.
# Seen (Node 20.20.2): 1. a here-document EOF, which takes up all of the rest of the file; 2. none, and its lines are told as instructions;
# 3. `getJSONStrings()` gives `ab`.
# Why it matters: instructions that are lost or made up build another template than the one that was written, without an error.
# The product lifts here-documents out before the parser sees them, and reads JSON forms by JSON.parse
# (packages/sdk/src/dockerfile/heredocs.ts and instructions.ts; the tests beside them have these cases).
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
const read = (...lines) => DockerfileParser.parse(`${lines.join('\n')}\n`).getInstructions()
const keywords = (instructions) => instructions.map((one) => one.getKeyword()).join(' ')

const cases = [
  {
    name: 'RUN echo "x <<EOF y", then USER',
    expected: 'FROM RUN USER',
    seen: keywords(read('FROM base', 'RUN echo "x <<EOF y"', 'USER nobody')),
    described: 'FROM RUN',
  },
  {
    name: 'RUN cat 3<<N with the body "hello"',
    expected: 'FROM RUN',
    seen: keywords(read('FROM base', 'RUN cat 3<<N /dev/fd/3', 'hello', 'N')),
    described: 'FROM RUN HELLO N',
  },
  {
    name: 'CMD ["cat", "a b"]',
    expected: 'cat|a b',
    seen: read('FROM base', 'CMD ["cat", "a b"]')[1].getJSONStrings().map((one) => one.getJSONValue()).join('|'),
    described: 'cat|ab',
  },
]
for (const { name, expected, seen } of cases) console.log(`${name}: ${seen} instead of ${expected}`)
process.exit(cases.every(({ seen, described }) => seen === described) ? 0 : 1)
JS
node read.cjs
