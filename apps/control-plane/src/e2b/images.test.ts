import { silentLogger, waitFor } from '@wrenn/base'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Db, openDatabase } from '../store/database.js'
import { json, type Platform, startPlatform } from '../testing/harness.js'

interface Begun {
  readonly templateID: string
  readonly buildID: string
}

interface Status {
  readonly status: string
  readonly logEntries: readonly { readonly message: string; readonly step: string }[]
  readonly reason?: { readonly message: string; readonly step?: string }
}

const login = { username: 'robot', password: 'a password that nobody may see' }
const digest = (letter: string): string => `sha256:${letter.repeat(64)}`
let platform: Platform
let db: Db

beforeAll(async () => {
  platform = await startPlatform({ env: { WRENN_ENCRYPTION_KEY: 'ab'.repeat(32) } })
  db = openDatabase({ url: platform.databaseUrl, logger: silentLogger })
  const { images } = platform.host
  const env = ['COLOUR=green', 'BROKEN', 'LARGE=='.concat('x'.repeat(10))]
  images.set('docker.io/library/python:3', { digest: digest('a'), env, user: 'jovyan', workingDir: '/srv' })
  images.set('ghcr.io/own/private:1', { digest: digest('b'), login })
}, 180_000)
afterAll(async () => {
  await db.destroy()
  await platform[Symbol.asyncDispose]()
}, 30_000)

let count = 0

async function submitted(body: object): Promise<Begun> {
  const name = `image-${count++}`
  const begun = await json<Begun>(await platform.call('POST', '/v3/templates', { name }), 202)
  const path = `/v2/templates/${begun.templateID}/builds/${begun.buildID}`
  expect((await platform.call('POST', path, body)).status).toBe(202)
  return begun
}

async function ended({ templateID, buildID }: Begun): Promise<Status> {
  const path = `/templates/${templateID}/builds/${buildID}/status`
  const look = async (): Promise<Status | undefined> => {
    const now = await json<Status>(await platform.call('GET', path), 200)
    return now.status === 'ready' || now.status === 'error' ? now : undefined
  }
  return await waitFor(look, { timeoutMs: 25_000, what: 'the build to end' })
}

const messages = ({ logEntries }: Status): readonly string[] => logEntries.map(({ message }) => message)
const asRoot = { type: 'USER', args: ['root'] }

describe('a build that begins with an image of a registry', () => {
  it('has the variables of the image, and as E2B the user and directory of the platform', async () => {
    const status = await ended(await submitted({ fromImage: 'python:3', steps: [] }))
    expect(status).toMatchObject({ status: 'ready' })
    expect(messages(status).slice(0, 3)).toEqual([
      'Asking for docker.io/library/python:3',
      "The image's variable BROKEN is left out: it cannot be one of a template.",
      'FROM docker.io/library/python:3',
    ])
    const { defaults } = await db
      .selectFrom('snapshots')
      .select('defaults')
      .where('name', '=', `image-${count - 1}`)
      .executeTakeFirstOrThrow()
    expect(defaults).toEqual({
      user: 'user',
      cwd: '/home/user',
      envs: { COLOUR: 'green', LARGE: '=xxxxxxxxxx' },
    })
  })

  it('keeps the results of steps by the digest of the image, not by its name', async () => {
    const steps = [asRoot, { type: 'WORKDIR', args: ['/'] }, { type: 'RUN', args: ['true'] }]
    await ended(await submitted({ fromImage: 'python:3', steps }))
    expect(messages(await ended(await submitted({ fromImage: 'python:3', steps }))).join('\n')).toContain(
      'CACHED [3/3]',
    )
    platform.host.images.set('docker.io/library/python:3', { digest: digest('c') })
    expect(messages(await ended(await submitted({ fromImage: 'python:3', steps }))).join('\n')).not.toContain('CACHED')
  })

  it('asks its registry by a login that is stored nowhere in clear, and not at all afterwards', async () => {
    const { release, reached } = platform.host.holdNext('fetch')
    const begun = await submitted({
      fromImage: 'ghcr.io/own/private:1',
      fromImageRegistry: { type: 'registry', ...login },
    })
    await reached
    const row = async () =>
      JSON.stringify(
        await db.selectFrom('template_builds').selectAll().where('id', '=', begun.buildID).executeTakeFirstOrThrow(),
      )
    expect(await row()).toMatch(/"login":"v1\./)
    expect(await row()).not.toContain(login.password)
    release()
    const status = await ended(begun)
    expect(status).toMatchObject({ status: 'ready' })
    expect(JSON.stringify(status)).not.toContain(login.password)
    expect(await row()).not.toMatch(/login|password/)
  })

  it('fails at its base, by the name of the image, without the right login', async () => {
    const wrong = { type: 'registry', username: 'robot', password: 'wrong' }
    for (const body of [
      { fromImage: 'ghcr.io/own/private:1' },
      { fromImage: 'ghcr.io/own/private:1', fromImageRegistry: wrong },
    ]) {
      const { status, reason } = await ended(await submitted(body))
      expect([status, reason?.step]).toEqual(['error', 'base'])
      expect(reason?.message).toContain('ghcr.io/own/private:1')
    }
  })

  it('leaves images to builds: nobody names one that the host has', async () => {
    await ended(await submitted({ fromImage: 'python:3', steps: [] }))
    for (const template of platform.host.fetched) {
      expect((await platform.call('POST', '/v1/capsules', { template })).status).toBe(404)
      const name = `image-${count++}`
      const begun = await json<Begun>(await platform.call('POST', '/v3/templates', { name }), 202)
      const path = `/v2/templates/${begun.templateID}/builds/${begun.buildID}`
      expect((await platform.call('POST', path, { fromTemplate: template })).status).toBe(404)
    }
    expect(platform.host.fetched.size).toBeGreaterThan(0)
  })
})
