// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of Dockerfiles
import { readFile } from 'node:fs/promises'
import { describe, expect, it, vi } from 'vitest'
import {
  type ArchiveEntry,
  type BuildContext,
  type ContextEntry,
  checkDockerfile,
  type DockerfileOptions,
  readDockerfile,
} from './index.js'

const folders = ['src', 'html', '.mvn']
const paths = [
  ...['package.json', 'package-lock.json', 'go.mod', 'go.sum', 'Gemfile', 'Gemfile.lock', 'composer.json'],
  ...[
    'composer.lock',
    'mvnw',
    'pom.xml',
    'nginx.conf',
    'app.tgz',
    'with blank',
    ...folders,
    'src/a.c',
    'src/b.h',
    'html/index.html',
    '.mvn/jvm',
  ],
]
const context = contextOf(
  paths.map((path) => ({ path, type: folders.includes(path) ? 'directory' : 'file', mode: 0o644 }) as const),
)

function contextOf(entries: readonly ContextEntry[], digest = (path: string) => `of ${path}`): BuildContext {
  return {
    entries: async () => entries,
    digest: async (path) => digest(path),
    archive: (list) => new Blob([list.map(({ as }) => as).join('\n')]).stream(),
  }
}

const read = async (text: string, options: DockerfileOptions = {}) =>
  await readDockerfile(text, { context, ...options })

/** Stages as lines: what they begin with, then each step. */
async function example(name: string, options: DockerfileOptions = {}) {
  const text = await readFile(new URL(`fixtures/${name}.Dockerfile`, import.meta.url), 'utf8')
  const { stages, entrypoint, command, readyCommand, notes } = await read(text, options)
  const told = stages.map(({ from, steps }) => [
    `FROM ${from}`,
    ...steps.map(({ type, args, shell = [], stage }) =>
      [
        type,
        ...(stage === undefined ? [] : [`@${stage}`]),
        ...(shell.join(' ') === '/bin/sh -c' ? [] : shell),
        ...args,
      ].join('|'),
    ),
  ])
  return { stages, told, entrypoint, command, readyCommand, notes }
}

describe('a Dockerfile of a kind that there is', () => {
  it('of Python: a global argument, a user, a secret, a cache, a health check', async () => {
    const { told, stages, entrypoint, command, readyCommand, notes } = await example('python', { secrets: ['index'] })
    expect(told).toEqual([
      [
        'FROM python:3.12-slim',
        'ENV|PYTHONUNBUFFERED|1|PIP_NO_INPUT|1',
        'WORKDIR|/service',
        'RUN|useradd     --create-home     --shell "/usr/sbin/nologin"     --comment ""     --uid "${OWNER_ID}"     weather',
        'RUN|pip install --cache-dir /var/cache/wheels flask || true',
        'USER|weather',
        'COPY|.|.|0:0|',
      ],
    ])
    expect(stages[0]?.steps[2]?.envs).toEqual({ OWNER_ID: '4711' })
    expect(stages[0]?.steps[3]).toMatchObject({
      secrets: [{ id: 'index', path: '/etc/pip.conf', mode: 0o400, owner: '0:0' }],
      scratch: ['/var/cache/wheels'],
    })
    expect({ entrypoint, command }).toEqual({
      entrypoint: undefined,
      command: ['flask', '--app', 'weather', 'run', '--host=0.0.0.0', '--port', '9000'],
    })
    expect(readyCommand).toBe("exec /bin/sh -c 'wget -qO- localhost:9000/now || exit 1'")
    expect(notes).toEqual(['Line 25: EXPOSE opens nothing: each port of a capsule has a URL.'])
  })

  it('of Node: a stage that begins with another, and what belongs to a user', async () => {
    const { told, entrypoint, command } = await example('node')
    expect(told[1]?.slice(0, 5)).toEqual([...(told[0] ?? []), 'COPY|.|./src|0:0|'])
    expect(told[2]).toEqual([
      'FROM node:20-alpine',
      'ENV|NODE_ENV|production',
      'WORKDIR|/weather',
      'COPY|@0|weather/node_modules|./node_modules|node:node|',
      'COPY|@1|weather/out|./out|node:node|',
      'USER|node',
    ])
    expect({ entrypoint, command }).toEqual({ entrypoint: ['docker-entrypoint.sh'], command: ['node', 'out/main.js'] })
  })

  it("of Go: the platform's arguments, and a mode", async () => {
    const { told, stages } = await example('go', { buildArgs: { RELEASE: '1.2' } })
    expect(told[0]?.at(-1)).toContain('GOARCH=$TARGETARCH go build')
    expect(stages[0]?.steps.at(-1)?.envs).toEqual({ TARGETOS: 'linux', TARGETARCH: 'amd64', RELEASE: '1.2' })
    expect(told[1]).toEqual(['FROM debian:12-slim', 'COPY|@0|out/weather|/usr/local/bin/weather||755'])
  })

  it('of Rust: stages that hand files on', async () => {
    const { told } = await example('rust')
    expect(told.map(([from]) => from)).toEqual(['FROM rust:1.82', 'FROM rust:1.82', 'FROM debian:bookworm-slim'])
    expect(told[1]).toContain('COPY|@0|crate/sources.txt|before.txt||')
    expect(told[2]?.at(-1)).toBe('COPY|@1|crate/target/release/weather|/usr/local/bin||')
  })

  it('of Ruby: variables of the environment in sources and values', async () => {
    const { told, entrypoint, command } = await example('ruby')
    expect(told[1]).toContain('COPY|@0|var/lib/gems|"${GEM_HOME}"||')
    expect(told[1]).toContain('ENV|RACK_ENV|"production"|GEM_HOME|"/var/lib/gems"|PATH|"/var/lib/gems/bin:$PATH"')
    expect(told[1]?.at(-1)).toBe('USER|2000:2000')
    expect({ entrypoint, command }).toEqual({
      entrypoint: ['bundle', 'exec'],
      command: ['rackup', '--host', '0.0.0.0'],
    })
  })

  it('of PHP: the old form of ENV, a command for a shell, and instructions without an effect', async () => {
    const { told, entrypoint, command, notes } = await example('php')
    expect(told[1]?.[1]).toBe('ENV|WEATHER_ROOT|/var/www/html/open')
    expect(told[1]?.[4]).toBe('COPY|@0|weather/vendor|/var/www/html/vendor/||')
    expect({ entrypoint, command }).toEqual({ entrypoint: undefined, command: ['/bin/sh', '-c', 'apache2-foreground'] })
    expect(notes).toHaveLength(2)
  })

  it('of Java: another shell, a stage by number, a pattern', async () => {
    const { told, entrypoint, command } = await example('java')
    expect(told[0]).toContain('RUN|/bin/bash|-o|pipefail|-c|./mvnw --quiet verify | tee verify.log')
    expect(told[0]).toContain('COPY|.|.mvn|0:0|')
    expect(told[1]?.at(-1)).toBe('COPY|@0|weather/target/*.jar|/jars/||')
    expect({ entrypoint, command }).toEqual({
      entrypoint: ['/bin/sh', '-c', 'exec java $JVM_FLAGS -jar /jars/weather.jar'],
      command: undefined,
    })
  })

  it('of Alpine: small letters, a blank line in a command, ADD', async () => {
    const { told, entrypoint, command } = await example('alpine')
    expect(told).toEqual([
      [
        'FROM alpine:3.20',
        "RUN|apk add --no-cache nginx  && addgroup 'pages'",
        'COPY|nginx.conf|/etc/nginx/nginx.conf|0:0|',
        'COPY|.|/pages/|0:0|',
      ],
    ])
    expect({ entrypoint, command }).toEqual({ entrypoint: undefined, command: ['nginx', '-g', 'daemon off;'] })
  })

  it('of .NET: the JSON form, and an image by its digest', async () => {
    const { told } = await example('dotnet')
    expect(told[0]).toContain('RUN|dotnet|restore|--nologo')
    expect(told[1]?.[0]).toMatch(/^FROM mcr\.microsoft\.com\/dotnet\/aspnet@sha256:0011/)
  })

  it('with here-documents of each kind', async () => {
    const { told, entrypoint, command } = await example('heredoc')
    expect(told[0]?.slice(2)).toEqual([
      'RUN|set -e\n# kept\necho "a <<b" \\\n  && echo c\n',
      'RUN|<<-\'PY\' python3 - > /srv/py\nimport os\nprint("$HOME", 1<<4)\nPY\n',
      expect.stringMatching(
        /^RUN\|\/bin\/sh\|-c\|f=\$\(mktemp\).*\|heredoc\|#!\/usr\/bin\/env python3\nprint\('own'\)\n$/s,
      ),
      'COPY|.|${TOOL_HOME}/|0:0|',
      'RUN|echo "no <<document here" && cat <<A <<B\none\nA\ntwo \\\nB\n',
      'RUN|cat 3<<N /dev/fd/3\nthree\nN\n',
    ])
    expect({ entrypoint, command }).toEqual({ entrypoint: undefined, command: ['cat', 'a b', 'c"d'] })
  })

  it('of many stages: only those that are needed, by name and by number, and files of an image', async () => {
    const { told } = await example('multi', { secrets: ['token'] })
    const two = ['FROM base', 'COPY|@0|one|/two||', 'RUN|echo $VERSION']
    expect(told).toEqual([
      ['FROM base', 'RUN|echo one > /one'],
      two,
      ['FROM busybox:1.36'],
      [...two, 'COPY|@2|bin/busybox|/bin/tool||', 'COPY|@0|one|/again||', 'COPY|@1|two|/||'],
    ])
    expect((await example('multi', { secrets: ['token'], target: 'one' })).told).toHaveLength(1)
  })
})

describe('files of a context', () => {
  const stepOf = async (text: string, options: DockerfileOptions = {}) =>
    (await read(`FROM base\n${text}`, options)).stages[0]?.steps[0]

  it('have one hash for as long as names, modes and contents are the same', async () => {
    const hash = async (mode: number, digest: string) =>
      (await stepOf('COPY a /', { context: contextOf([{ path: 'a', type: 'file', mode }], () => digest) }))?.filesHash
    const first = await hash(0o644, 'x')
    expect(first).toMatch(/^[0-9a-f]{64}$/)
    expect(await hash(0o644, 'x')).toBe(first)
    expect(await hash(0o755, 'x')).not.toBe(first)
    expect(await hash(0o644, 'y')).not.toBe(first)
  })

  it('are picked by patterns that do not cross folders, and their names are told', async () => {
    const picked = async (source: string) => (await stepOf(`COPY ${source} /to/`))?.files?.map(([path]) => path)
    expect(await picked('*.json')).toEqual(['composer.json', 'package-lock.json', 'package.json'])
    expect(await picked('s*')).toEqual(['a.c', 'b.h'])
    expect(await picked('src/[^a].h src/?.c')).toEqual(['a.c', 'b.h'])
    expect(await picked('./src/../go.*')).toEqual(['go.mod', 'go.sum'])
    expect(await picked('go.[l-n]od [\\g]o.sum')).toEqual(['go.mod', 'go.sum'])
    const json = await stepOf('COPY ["src/a.c", "with blank", "/to/"]')
    expect(json?.files?.map(([path]) => path)).toEqual(['a.c', 'with blank'])
  })

  it('are followed where the link itself is named, and only within the context', async () => {
    const entries: ContextEntry[] = [
      { path: 'real', type: 'file', mode: 0o644 },
      { path: 'link', type: 'symlink', mode: 0o777, link: 'real' },
      { path: 'out', type: 'symlink', mode: 0o777, link: '../../etc/passwd' },
    ]
    const options = { context: contextOf(entries) }
    expect((await stepOf('COPY link /to', options))?.args).toEqual(['link', '/to', '0:0', ''])
    await expect(stepOf('COPY out /to', options)).rejects.toThrow('which is not in the context')
  })

  it('come with texts of here-documents, whose variables are those of the file', async () => {
    const recipe = await read('FROM base\nARG A=1\nCOPY <<x <<"y" go.mod /to/\n$A ${A:-2} \\$A\nx\n$A\ny\n')
    expect(recipe.uploads).toHaveLength(1)
    await expect(read('FROM base\nCOPY <<x /to\n$PATH\nx\n')).rejects.toThrow('Line 2: COPY: $PATH has no value')
  })

  it('are packed with the digests by which they are called', async () => {
    let packed: readonly ArchiveEntry[] = []
    const archive: BuildContext['archive'] = (list) => {
      packed = list
      return new Blob([]).stream()
    }
    const { uploads } = await read('FROM base\nCOPY src <<x /to/\nx\n', { context: { ...context, archive } })
    uploads[0]?.open()
    expect(packed).toEqual([
      { as: 'a.c', entry: expect.anything(), digest: 'of src/a.c' },
      { as: 'b.h', entry: expect.anything(), digest: 'of src/b.h' },
      { as: 'x', text: '' },
    ])
  })

  it('and texts of here-documents are refused while the file is read where there is no context', async () => {
    for (const copy of ['COPY go.mod /', 'COPY <<x /x\nx']) {
      await expect(readDockerfile(`FROM base\n${copy}\n`)).rejects.toThrow('Line 2: COPY needs a context')
    }
  })
})

describe('what is not understood', () => {
  it.each([
    ['RUN x', 'Line 1: RUN stands before the first FROM'],
    ['', 'FROM is missing'],
    ['FROM scratch', 'Line 1: FROM scratch is not supported'],
    ['FROM $X', 'Line 1: FROM needs a template or an image; $X is empty'],
    ['FROM base AS', 'Line 1: FROM has more than a name'],
    ['FROM --platform=linux/arm64 base', 'is for linux/arm64'],
    ['FROM base\n\nONBUILD RUN x', 'Line 3: ONBUILD is not supported'],
    ['FROM base\nFOO bar', 'Line 2: FOO is no instruction'],
    ['# escape=`\nFROM base', 'Line 1: escape is a directive for Windows'],
    ['FROM base\nADD https://example.com/x /x', 'Line 2: ADD takes nothing from a network'],
    ['FROM base\nADD app.tgz /x', 'Line 2: ADD would unpack app.tgz'],
    ['FROM base\nADD app.* /x/', 'Line 2: ADD would unpack app.tgz'],
    ['FROM base\nCOPY [z-a] /x', 'Line 2: COPY has [z-a], which is no pattern'],
    ['FROM base\nCOPY --parents a /x', 'Line 2: COPY has --parents'],
    ['FROM base\nCOPY nothing /x', 'Line 2: COPY finds no nothing in the context'],
    ['FROM base\nCOPY go.mod go.sum /x', 'must end in a slash'],
    ['FROM base\nCOPY --chmod=u+x go.mod /x', 'octal digits'],
    ['FROM base\nCOPY --from=other / /x', 'takes / of a stage'],
    ['FROM base\nRUN --mount=type=ssh x', 'Line 2: RUN has --mount=type=ssh'],
    ['FROM base\nRUN --mount=target=/x x', 'Line 2: RUN has --mount=type=bind'],
    ['FROM base\nRUN --mount=type=secret,id=a,required x', 'Line 2: RUN needs the secret a'],
    ['FROM base\nRUN --mount=type=cache,target=x y', 'Line 2: RUN has --mount=type=cache with the target x'],
    ['FROM base\nRUN --mount=type=secret,id=a/b x', 'Line 2: RUN has a secret a/b'],
    ['FROM base\nRUN --network=none x', 'Line 2: RUN has --network=none'],
    ['FROM base\nRUN', 'Line 2: RUN needs a command'],
    ['FROM base\nRUN <<EOF\nx', 'Line 2: here-document has no end'],
    ['FROM base\nENV A="x', 'Line 2: ENV: "x has a quote without an end.'],
    ['FROM base\nENV A=my secret', 'Line 2: ENV has a word 2 that is not NAME=value'],
    ['FROM base\nENV A', 'Line 2: ENV has A without a value'],
    ['FROM base\nENV A=${B%x}', 'Line 2: ENV: ${B%x} has a form of ${B…}'],
    ['FROM base\nSHELL /bin/bash', 'Line 2: SHELL needs its program as JSON'],
    ['FROM base\nHEALTHCHECK --every=5s CMD x', 'Line 2: HEALTHCHECK has --every'],
    ['FROM base\nHEALTHCHECK x', 'Line 2: HEALTHCHECK needs CMD'],
  ])('%j is refused by its line', async (text, message) => {
    await expect(read(text)).rejects.toMatchObject({
      code: 'invalid_request',
      message: expect.stringContaining(message),
    })
  })

  it('is not what stands in quotes or in a comment between lines', async () => {
    const { stages } = await read('FROM base\nRUN echo "x <<EOF y"\nRUN a \\\n  # <<EOF\n  && b\n')
    expect(stages[0]?.steps.map(({ args }) => args)).toEqual([['echo "x <<EOF y"'], ['a   && b']])
  })
})

describe('what a container would run', () => {
  const commands = async (...lines: readonly string[]) => {
    const { entrypoint, command } = await read(['FROM base AS one', ...lines].join('\n'))
    return { ...(entrypoint && { entrypoint }), ...(command && { command }) }
  }

  it('is for the image to say where the file does not', async () => {
    expect(await commands('RUN a')).toEqual({})
    expect(await commands('CMD []')).toEqual({ command: [] })
    expect(await commands('ENTRYPOINT []', 'CMD ["a"]')).toEqual({ entrypoint: [], command: ['a'] })
  })

  it('is that of a stage which another begins with', async () => {
    const first = ['ENTRYPOINT ["in"]', 'CMD ["a"]']
    expect(await commands(...first, 'FROM one')).toEqual({ entrypoint: ['in'], command: ['a'] })
    expect(await commands(...first, 'FROM one', 'CMD ["b"]')).toEqual({ entrypoint: ['in'], command: ['b'] })
  })

  it('loses the command of what it begins with by an entry point of its own', async () => {
    expect(await commands('CMD ["a"]', 'FROM one', 'ENTRYPOINT ["in"]')).toEqual({ entrypoint: ['in'] })
    expect(await commands('CMD ["a"]', 'ENTRYPOINT ["in"]')).toEqual({ entrypoint: ['in'], command: ['a'] })
    const own = ['CMD ["a"]', 'FROM one', 'CMD ["b"]', 'ENTRYPOINT ["in"]']
    expect(await commands(...own)).toEqual({ entrypoint: ['in'], command: ['b'] })
  })

  it('serves what it exposes, as far as the file says it', async () => {
    const { ports } = await read(
      'FROM base AS one\nARG P=81\nEXPOSE 80/tcp $P 53/udp 8000-8010 $OF_IMAGE 99999\nFROM one\nEXPOSE 80 82',
    )
    expect(ports).toEqual([80, 81, 8000, 82])
    expect((await read('FROM base\nRUN a')).ports).toBeUndefined()
  })

  it('takes no arguments where the entry point is for a shell', async () => {
    expect(await commands('ENTRYPOINT in', 'CMD ["a"]')).toEqual({ entrypoint: ['/bin/sh', '-c', 'in'] })
  })
})

it('is read in browsers too, which have no Buffer', async () => {
  vi.stubGlobal('Buffer', undefined)
  try {
    expect((await read('\uFEFF# syntax=docker/dockerfile:1\nFROM base\nRUN a')).stages[0]?.steps).toHaveLength(1)
  } finally {
    vi.unstubAllGlobals()
  }
})

describe('a check', () => {
  it('names all that is refused, and goes on after it', async () => {
    const text = [
      'FROM scratch',
      'RUN a',
      'COPY no/such /',
      'ONBUILD RUN x',
      'EXPOSE 80',
      'RUN --mount=type=ssh x',
      'NEVER',
    ]
    const { problems, notes } = await checkDockerfile(text.join('\n'), { context })
    expect(problems.map(({ line, instruction }) => [line, instruction])).toEqual([
      [1, 'FROM'],
      [3, 'COPY'],
      [4, 'ONBUILD'],
      [6, 'RUN'],
      [7, 'NEVER'],
    ])
    expect(problems[1]?.message).toContain('Line 3: COPY finds no no/such in the context')
    expect(notes).toEqual(['Line 5: EXPOSE opens nothing: each port of a capsule has a URL.'])
  })

  it('has nothing to say of what is understood, and one thing of what cannot be read on', async () => {
    expect(await checkDockerfile('FROM base\nRUN a')).toEqual({ problems: [], notes: [] })
    expect((await checkDockerfile('')).problems).toMatchObject([{ line: 1, instruction: 'FROM' }])
    expect((await checkDockerfile('FROM base\nRUN <<end\na')).problems).toMatchObject([{ line: 2 }])
  })

  it('keeps no failure of the context to itself', async () => {
    const torn = { ...context, digest: () => Promise.reject(new Error('unreadable')) }
    await expect(checkDockerfile('FROM base\nCOPY go.mod /', { context: torn })).rejects.toThrow('unreadable')
  })
})

describe('values', () => {
  it('of ENV are not in what logs call a step, and secrets are nowhere', async () => {
    const recipe = await read('FROM base\nENV A=hidden B="hid den"\nENV OLD hid den\nRUN --mount=type=secret,id=s x', {
      secrets: ['s'],
    })
    const labels = recipe.stages[0]?.steps.map(({ label }) => label)
    expect(labels).toEqual(['ENV A=… B=…', 'ENV OLD=…', 'RUN --mount=type=secret,id=s x'])
    expect(recipe.stages[0]?.steps.map(({ line }) => line)).toEqual([2, 3, 4])
  })

  it.each(['ENV A my hidden=x', 'ENV A=a\\ hidden', 'ENV A=x"y hidden"', 'ENV A="a\\"b hidden"', "ENV A='x hidden'"])(
    'of %s are not in what logs call it',
    async (line) => {
      const { stages } = await read(`FROM base\n${line}`)
      expect(stages[0]?.steps.map(({ label }) => label)).toEqual(['ENV A=…'])
    },
  )

  it('of one ENV are made of what was before it', async () => {
    const { stages } = await read('FROM base\nENV A=go.mod\nENV A=go.sum B=$A\nCOPY $B $A /to/')
    expect(stages[0]?.steps[2]?.files?.map(([path]) => path)).toEqual(['go.mod', 'go.sum'])
    await expect(read('FROM base\nARG A=go.mod\nENV A=$PATH\nCOPY $A /')).rejects.toThrow('COPY: $A has no value')
  })

  it('of arguments are told when nothing uses them', async () => {
    expect((await read('FROM base', { buildArgs: { NOBODY: '1' } })).notes).toEqual([
      'The build argument NOBODY is used by no ARG.',
    ])
  })

  it('of arguments are those of the stage, and end with it', async () => {
    const { stages } = await read('ARG A=1\nFROM base AS x\nRUN a\nARG A\nRUN b\nFROM x\nRUN c\nENV A=9\nRUN d')
    expect(stages[0]?.steps.map(({ envs }) => envs)).toEqual([undefined, { A: '1' }, { A: '1' }, undefined, undefined])
  })
})
