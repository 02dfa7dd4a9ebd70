import { createHash } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Api, usePlatform } from '../harness/api.js'
import { addPerson, bearer, firstAdmin, logIn } from '../harness/people.js'
import { type CommandResult, wrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform } = usePlatform()
const anonymous = new Api(platform, '')
const name = 'from-dockerfile'
/** Two builds, one of them anew: a minute by itself, and several on a machine that is busy. */
const BUSY_MS = 600_000
const secret = 'correct-horse-battery-staple'
/** A team of its own: what builds keep of their steps goes with it. */
let team: { readonly path: string; readonly session: ReturnType<typeof bearer> }
let key: string
let dir: string
let context: string

const dockerfile = `# syntax=docker/dockerfile:1
ARG BASE=base
FROM \${BASE} AS build
ARG WORD=none
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=token,required=true --mount=type=cache,target=/var/cache/mine \\
    # what it is stays here
    touch /var/cache/mine/x && sha256sum < /run/secrets/token > digest && cat /run/secrets/token
RUN <<EOF
set -e
mkdir -p out/bin
printf '#!/bin/sh\\necho "%s %s"\\n' "$WORD" "$(cat lib/greeting)" > out/bin/greet
chmod 755 out/bin/greet
ln -s greet out/bin/hello
EOF

FROM base AS unused
RUN exit 1

FROM base
ENV PATH=/opt/tool/bin:$PATH PORT=8090
COPY --from=build --chown=user:user /src/out /opt/tool
COPY --from=build /src/digest /etc/digest
COPY <<'page' /srv/www/index.html
served by $PORT
page
RUN ["greet"]
RUN [ ! -e /run/secrets/token ] && [ ! -e /var/cache/mine ]
WORKDIR /srv/www
USER user
EXPOSE 8090
HEALTHCHECK CMD curl --silent --fail http://127.0.0.1:$PORT/
ENTRYPOINT ["python3", "-m", "http.server"]
CMD ["8090"]
`

beforeAll(async () => {
  await firstAdmin(platform)
  const auth = await logIn(platform, (await addPerson(platform, 'Docker')).email)
  team = { path: `/v1/teams/${auth.team_id}`, session: bearer(auth) }
  key = (await anonymous.json<{ key: string }>('POST', '/v1/api-keys', { json: {}, ...team.session })).key
  dir = await mkdtemp(join(tmpdir(), 'wrenn-e2e-dockerfile-'))
  context = join(dir, 'context')
  await mkdir(join(context, 'lib'), { recursive: true })
  await writeFile(join(context, 'Dockerfile'), dockerfile)
  await writeFile(join(context, '.dockerignore'), 'Dockerfile\n*.key\n')
  await writeFile(join(context, 'lib/greeting'), 'world\n')
  await writeFile(join(context, 'private.key'), 'not for the image')
  await writeFile(join(dir, 'token'), secret)
})
afterAll(async () => {
  await rm(dir, { recursive: true, force: true })
  await run('template', 'rm', name)
  await anonymous.json('DELETE', team.path, team.session)
})

const run = async (...args: string[]): Promise<CommandResult> =>
  await wrenn(platform, args, { env: { WRENN_API_KEY: key } })
const build = async (...more: string[]): Promise<CommandResult> =>
  await run(
    ...['template', 'build', name, context, '--build-arg', 'WORD=hello'],
    ...['--secret', `id=token,src=${join(dir, 'token')}`, ...more],
  )

describe('wrenn template build', () => {
  it('builds a Dockerfile of several stages, and capsules of it serve and have no secret', async () => {
    const { code, stdout, stderr } = await build()
    expect([code, stdout.trim(), stderr]).toEqual([0, name, expect.stringContaining('hello world')])
    expect(stderr).toContain('EXPOSE opens nothing')
    expect(stderr).toContain('***')
    expect(stderr).not.toContain(secret)
    const capsule = await new Api(platform, key).create({ template: name })
    const digest = createHash('sha256').update(secret).digest('hex')
    const line = 'hello; id -un; pwd; cat index.html /etc/digest; stat -c %U /opt/tool/bin/greet /etc/digest'
    const seen = await capsule.sh(line)
    expect(seen.stdout).toBe(`hello world\nuser\n/srv/www\nserved by $PORT\n${digest}  -\nuser\nroot\n`)
    const served = await eventually('its service to answer', async () => {
      const answer = await capsule.sh('curl --silent http://127.0.0.1:8090/')
      return answer.stdout === '' ? undefined : answer.stdout
    })
    expect(served).toBe('served by $PORT\n')
    await capsule.destroy()
  })

  it(
    'takes all from the cache, then tells which file changed, also by --json',
    async () => {
      const again = await build()
      expect(again.stderr.match(/CACHED/g)?.length ?? 0, again.stderr).toBeGreaterThan(5)
      await writeFile(join(context, 'lib/greeting'), 'moon\n')
      const changed = await build('--json')
      const lines = changed.stdout
        .trim()
        .split('\n')
        .map((text) => JSON.parse(text))
      const said = lines.map(({ message = '' }) => message).join('\n')
      expect(said).toContain('(file lib/greeting changed)')
      expect(said).toContain('hello moon')
      expect(said).not.toContain(secret)
      expect(lines.at(-1)).toMatchObject({ name, state: 'ready' })
      const info = await run('template', 'info', name, '--json')
      const { builds } = JSON.parse(info.stdout)
      expect(builds).toHaveLength(3)
      // WORKDIR and USER, which follow the last step whose result is worth keeping, are done anew in a moment.
      expect(builds[1]).toMatchObject({ steps: builds[0].steps, cached_steps: builds[0].steps - 2 })
      const listed = async (state: string) => {
        const { stdout } = await run('template', 'ls', '--builds', name, '--state', state, '--json')
        return JSON.parse(stdout).length
      }
      expect([await listed('ready'), await listed('open'), await listed('error')]).toEqual([3, 0, 0])
    },
    BUSY_MS,
  )

  it(
    'goes to a file and back by another name, and serves again',
    async () => {
      const file = join(dir, 'web.wrenn')
      const exported = await run('template', 'export', name, file, '--json')
      expect([exported.code, JSON.parse(exported.stdout)]).toEqual([0, { name, file, bytes: (await stat(file)).size }])
      const bytes = await readFile(file)
      bytes[1_000_000] = (bytes[1_000_000] ?? 0) ^ 1
      await writeFile(join(dir, 'damaged.wrenn'), bytes)
      const refused = await run('template', 'import', join(dir, 'damaged.wrenn'), 'damaged')
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('is damaged')])
      const { code, stderr } = await run('template', 'import', file, 'imported')
      expect([code, stderr]).toEqual([0, expect.stringContaining('Starting: ')])
      const capsule = await new Api(platform, key).create({ template: 'imported' })
      expect((await capsule.sh('hello; id -un; pwd; stat -c %U /opt/tool/bin/greet')).stdout).toMatch(
        /^hello \w+\nuser\n\/srv\/www\nuser\n$/,
      )
      const served = await eventually('its service to answer', async () => {
        const answer = await capsule.sh('curl --silent http://127.0.0.1:8090/')
        return answer.stdout === '' ? undefined : answer.stdout
      })
      expect(served).toBe('served by $PORT\n')
      await capsule.destroy()
      await run('template', 'rm', 'imported')
    },
    BUSY_MS,
  )

  it('refuses what is not understood by its line, before anything is built', async () => {
    const file = join(dir, 'Refused')
    await writeFile(file, 'FROM base\n\nONBUILD RUN x\n')
    const { code, stderr } = await run('template', 'build', 'refused', '-f', file, context)
    expect([code, stderr]).toEqual([1, expect.stringContaining('Line 3: ONBUILD is not supported')])
  })
})
