import { readFileSync } from 'node:fs'
import { Wrenn } from '@wrenn/sdk'
import { describe, expect, it } from 'vitest'
import { firstRows } from './capsules/first-rows.js'
import {
  type EarlyAnswers,
  listPaths,
  peekAtAnswer,
  shellPaths,
  whenAnswered,
  withEarlyAnswers,
} from './early-answers.js'

const ORIGIN = 'http://127.0.0.1:1'
const url = `${ORIGIN}/v1/me`
/** Longer than a test may take. */
const FOREVER_MS = 60_000
const ask: typeof fetch = async () => new Response('asked')
const early = (answer: Promise<Response>): EarlyAnswers => new Map([[url, answer]])
const textOf = async (asked: Promise<Response>): Promise<string> => await (await asked).text()

describe('an early answer', () => {
  it('is given once, to who reads', async () => {
    const get = withEarlyAnswers(early(Promise.resolve(new Response('early'))), ask)
    expect(await textOf(get(url, { method: 'PATCH' }))).toBe('asked')
    expect(await textOf(get(`${url}/more`))).toBe('asked')
    expect(await textOf(get(url, { method: 'GET' }))).toBe('early')
    expect(await textOf(get(url, { method: 'GET' }))).toBe('asked')
  })

  it('fails as it failed, and is not waited for by who does not want it any more', async () => {
    const failing = withEarlyAnswers(early(Promise.reject(new TypeError('no network'))), ask)
    await expect(failing(url)).rejects.toThrow('no network')
    const ended = new AbortController()
    const waiting = withEarlyAnswers(early(new Promise(() => {})), ask)(url, { signal: ended.signal })
    ended.abort(new Error('not wanted'))
    await expect(waiting).rejects.toThrow('not wanted')
  })

  it('is looked at before it is given, by who asks for nothing', async () => {
    const answers = early(Promise.resolve(new Response('["early"]')))
    expect(await peekAtAnswer(answers, '/v1/me')).toEqual(['early'])
    expect(await peekAtAnswer(answers, '/v1/me')).toEqual(['early'])
    expect(await textOf(withEarlyAnswers(answers, ask)(url))).toBe('["early"]')
    await expect(peekAtAnswer(answers, '/v1/me')).rejects.toThrow('was not asked for')
    await expect(peekAtAnswer(undefined, '/v1/me')).rejects.toThrow('was not asked for')
    const refused = early(Promise.resolve(new Response('{"error":{}}', { status: 401 })))
    await expect(peekAtAnswer(refused, '/v1/me')).rejects.toThrow('401')
  })

  it('is there when there is none', async () => {
    expect(await textOf(withEarlyAnswers(undefined, ask)(url))).toBe('asked')
  })
})

describe('early answers', () => {
  it('are waited for, also where one fails, but not for ever', async () => {
    let isLate = false
    const late = new Promise<Response>((resolve) => {
      setTimeout(() => {
        isLate = true
        resolve(new Response('late'))
      })
    })
    const teams = `${ORIGIN}/v1/teams`
    const answers = new Map([...early(Promise.reject(new TypeError('no network'))), [teams, late]])
    await whenAnswered(answers, shellPaths, FOREVER_MS)
    expect(isLate).toBe(true)
    await whenAnswered(early(new Promise(() => {})), shellPaths, 1)
    await whenAnswered(undefined, shellPaths, FOREVER_MS)
  })

  it('hold up those alone who are painted with them', async () => {
    let isListed = false
    let give = (_answer: Response): void => {}
    const list = new Promise<Response>((resolve) => {
      give = resolve
    })
    const answers = new Map([...early(Promise.resolve(new Response('me'))), [`${ORIGIN}/v1/capsules?limit=40`, list]])
    await whenAnswered(answers, shellPaths, FOREVER_MS)
    const painted = whenAnswered(answers, listPaths, FOREVER_MS).then(() => isListed)
    setTimeout(() => {
      isListed = true
      give(new Response('list'))
    })
    expect(await painted).toBe(true)
  })
})

describe('the shell', () => {
  it('asks for exactly what every page of the dashboard begins with', async () => {
    const asked: string[] = []
    const note: typeof fetch = async (input, init) => {
      asked.push(String(input).slice(ORIGIN.length))
      expect(new Headers(init?.headers).get('x-wrenn-csrf')).toBe('1')
      return new Response('[]', { headers: { 'content-type': 'application/json' } })
    }
    const wrenn = new Wrenn({ apiUrl: ORIGIN, cookies: true, fetch: note })
    await wrenn.account.me().catch(() => {}) // `[]` is nobody
    await wrenn.teams.list()
    for await (const _ of wrenn.capsules.list(firstRows)) break
    const shell = readFileSync(new URL('../app.html', import.meta.url), 'utf8')
    const paths = [...shell.matchAll(/'(\/v1\/[^']*)'/g)].map(([, path]) => path)
    expect(paths).toEqual(asked)
    const waitedFor = [...shellPaths, ...listPaths]
    expect(asked.map((path) => new URL(path, ORIGIN).pathname)).toEqual(waitedFor)
  })
})
