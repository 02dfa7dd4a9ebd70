import { AppError } from '@wrenn/base'
import type { Capsule, ErrorBody } from '@wrenn/protocol'
import { startTestPostgres, type TestPostgres } from '@wrenn/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Frame, json, type Platform, type Socket, startPlatform } from './testing/harness.js'

let postgres: TestPostgres
let platform: Platform

beforeAll(async () => {
  postgres = await startTestPostgres()
}, 60_000)
afterAll(async () => {
  await postgres[Symbol.asyncDispose]()
})
beforeEach(async () => {
  platform = await startPlatform({ databaseUrl: postgres.url })
}, 30_000)
afterEach(async () => {
  await platform[Symbol.asyncDispose]()
})

const at = ({ id }: Capsule, path: string): string => `/v1/capsules/${id}${path}`

async function pause(capsule: Capsule): Promise<void> {
  await json(await platform.call('POST', at(capsule, '/pause?wait_sec=30')), 200)
  await platform.until(capsule.id, 'paused')
}

async function resume(capsule: Capsule): Promise<void> {
  await json(await platform.call('POST', at(capsule, '/resume?wait_sec=30')), 200)
  await platform.until(capsule.id, 'running')
}

async function errorCode(response: Response, status: number): Promise<string> {
  return (await json<ErrorBody>(response, status)).error.code
}

const echo = (capsule: Capsule, text = 'hi') =>
  platform.call('POST', at(capsule, '/exec'), { cmd: 'echo', args: [text] })
/** Says `up N` for every line it reads. */
const talker = 'n=0; echo up; while read line; do n=$((n+1)); echo "$line $n"; done'
const line = (text: string) => ({ type: 'stdin', data: Buffer.from(`${text}\n`).toString('base64') })

async function openTalker(capsule: Capsule, tag: string): Promise<Socket> {
  const socket = platform.open(at(capsule, '/exec/stream'))
  await socket.send({ type: 'start', cmd: '/bin/sh', args: ['-c', talker], stdin: true, tag })
  await readUntil(socket, 'up\n')
  return socket
}

async function untilState(socket: Socket, wanted: Capsule['state']): Promise<void> {
  for (let frame = await socket.frame(); frame?.state !== wanted; frame = await socket.frame()) {
    if (frame === undefined) throw new Error(`closed before ${wanted}`)
  }
}

/** A session that begins tells the state of its capsule and what its process says, in either order. */
async function untilItRuns(socket: Socket): Promise<void> {
  const missing = new Set(['state', 'output'])
  while (missing.size > 0) {
    const frame = await socket.frame()
    if (frame === undefined) throw new Error(`closed without ${[...missing].join(' and ')}`)
    if (frame.state === 'running') missing.delete('state')
    if (frame.type === 'stdout' || frame.type === 'output') missing.delete('output')
  }
}

/** Output up to and with `end`. */
async function readUntil(socket: Socket, end: string): Promise<{ text: string; frames: Frame[] }> {
  const frames: Frame[] = []
  let text = ''
  while (!text.endsWith(end)) {
    const frame = await socket.frame()
    if (frame === undefined) throw new Error(`closed after ${text}`)
    if (frame.type === 'error') throw new Error(`error after ${text}: ${JSON.stringify(frame)}`)
    frames.push(frame)
    if (frame.type === 'stdout') text += String(frame.data)
  }
  return { text, frames }
}

describe('a paused capsule with auto_resume', () => {
  it('wakes for commands, lists, kills, files and streams', async () => {
    const capsule = await platform.create({ auto_resume: true })
    const put = await fetch(`${platform.url}${at(capsule, '/files?path=/note')}`, {
      method: 'PUT',
      headers: { 'x-api-key': platform.key },
      body: 'kept',
    })
    expect(put.status).toBe(200)
    const calls: (() => Promise<unknown>)[] = [
      async () => expect(await json(await echo(capsule), 200)).toMatchObject({ stdout: 'hi\n' }),
      async () => await json(await platform.call('GET', at(capsule, '/processes')), 200),
      async () =>
        expect(await errorCode(await platform.call('DELETE', at(capsule, '/processes/nobody')), 404)).toBe(
          'process_not_found',
        ),
      async () => expect(await (await platform.call('GET', at(capsule, '/files?path=/note'))).text()).toBe('kept'),
      async () => await json(await platform.call('POST', at(capsule, '/files/list'), { path: '/', depth: 1 }), 200),
      async () => {
        const again = await fetch(`${platform.url}${at(capsule, '/files?path=/note')}`, {
          method: 'PUT',
          headers: { 'x-api-key': platform.key },
          body: 'kept',
        })
        expect(again.status).toBe(200)
      },
      async () => {
        const socket = platform.open(at(capsule, '/exec/stream'))
        await socket.send({ type: 'start', cmd: 'true' })
        expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 0 })
      },
      async () => {
        const socket = platform.open(at(capsule, '/pty'))
        await socket.send({ type: 'start', cmd: '/bin/true' })
        expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 0 })
      },
    ]
    for (const call of calls) {
      await pause(capsule)
      await call()
      expect((await platform.get(capsule.id)).state).toBe('running')
    }
  }, 60_000)

  it('is woken once by fifty calls at the same time', async () => {
    const capsule = await platform.create({ auto_resume: true })
    await pause(capsule)
    const held = platform.host.holdNext('resume')
    const second = platform.host.holdNext('resume')
    let resumes = 1
    void second.reached.then(() => resumes++)
    const calls = Array.from({ length: 50 }, (_, index) => echo(capsule, String(index)))
    await held.reached
    held.release()
    const answers = await Promise.all(calls.map(async (call) => await json<{ stdout: string }>(await call, 200)))
    expect(answers.map(({ stdout }) => stdout)).toEqual(Array.from({ length: 50 }, (_, index) => `${index}\n`))
    expect(resumes).toBe(1)
    second.release()
  }, 60_000)

  it('is woken by a call that comes while it is being paused', async () => {
    const capsule = await platform.create({ auto_resume: true })
    const held = platform.host.holdNext('pause')
    expect((await platform.call('POST', at(capsule, '/pause?wait_sec=0'))).ok).toBe(true)
    await held.reached
    const asked = echo(capsule)
    held.release()
    expect(await json(await asked, 200)).toMatchObject({ stdout: 'hi\n' })
  })

  it('gives the reason to those who wait when it cannot wake, and wakes later', async () => {
    const capsule = await platform.create({ auto_resume: true })
    await pause(capsule)
    platform.host.failNext('resume', new AppError('snapshot_damaged', 'state is damaged'))
    expect(await errorCode(await echo(capsule), 500)).toBe('snapshot_damaged')
    expect((await platform.get(capsule.id)).state).toBe('paused')
    expect(await json(await echo(capsule), 200)).toMatchObject({ stdout: 'hi\n' })
  })
})

describe('a paused capsule without auto_resume', () => {
  it('refuses calls and says what to do', async () => {
    const capsule = await platform.create()
    await pause(capsule)
    const { error } = await json<ErrorBody>(await echo(capsule), 409)
    expect(error).toMatchObject({ code: 'invalid_state', details: { state: 'paused' } })
    expect(error.message).toMatch(/Resume it.*auto_resume/)
    expect(await errorCode(await platform.call('POST', at(capsule, '/files/read'), { path: '/a' }), 409)).toBe(
      'invalid_state',
    )
    const socket = platform.open(at(capsule, '/exec/stream'))
    await socket.send({ type: 'start', cmd: 'true' })
    expect(await socket.frame()).toMatchObject({ type: 'error', code: 'invalid_state', fatal: true })
    const attach = platform.open(at(capsule, '/processes/any/stream'))
    expect(await attach.frame()).toMatchObject({ type: 'error', code: 'invalid_state', fatal: true })
  })

  it('lets calls wait that come while somebody resumes it', async () => {
    const capsule = await platform.create()
    await pause(capsule)
    const held = platform.host.holdNext('resume')
    expect((await platform.call('POST', at(capsule, '/resume?wait_sec=0'))).ok).toBe(true)
    await held.reached
    const asked = echo(capsule)
    held.release()
    expect(await json(await asked, 200)).toMatchObject({ stdout: 'hi\n' })
  })
})

describe('streams of a capsule that is paused', () => {
  it('are silent, keep input in its order, and miss nothing', async () => {
    const capsule = await platform.create()
    const socket = await openTalker(capsule, 'talker')
    await socket.send(line('before'))
    await readUntil(socket, 'before 1\n')
    await pause(capsule)
    for (const text of ['a', 'b', 'c']) await socket.send(line(text))
    await resume(capsule)
    const { text, frames } = await readUntil(socket, 'c 4\n')
    expect(text).toBe('a 2\nb 3\nc 4\n')
    expect(frames.every(({ type }) => type === 'stdout')).toBe(true)
    await socket.send({ type: 'stdin_close' })
    expect((await socket.until('exit')).at(-1)).toMatchObject({ exit_code: 0 })
  }, 30_000)

  it('say what state it is in to those who ask for that, and nothing to others', async () => {
    const capsule = await platform.create()
    const start = { type: 'start', cmd: '/bin/sh', args: ['-c', talker], stdin: true }
    const plain = platform.open(at(capsule, '/exec/stream'))
    await plain.send(start)
    await readUntil(plain, 'up\n')
    const told = platform.open(at(capsule, '/exec/stream?states=true'))
    const terminal = platform.open(at(capsule, '/pty?states=true'))
    await told.send(start)
    await terminal.send({ type: 'start', cmd: '/bin/sh', args: ['-c', talker] })
    // A capsule that is paused before they have begun refuses them.
    await untilItRuns(told)
    await untilItRuns(terminal)
    await pause(capsule)
    await untilState(told, 'paused')
    await untilState(terminal, 'paused')
    await resume(capsule)
    await untilState(told, 'running')
    await plain.send(line('on'))
    expect((await readUntil(plain, 'on 1\n')).frames.map(({ type }) => type)).not.toContain('state')
  })

  it('wake it by input when it has auto_resume', async () => {
    const capsule = await platform.create({ auto_resume: true })
    const socket = await openTalker(capsule, 'talker')
    await pause(capsule)
    await socket.send(line('wake'))
    expect((await readUntil(socket, 'wake 1\n')).text).toBe('wake 1\n')
    expect((await platform.get(capsule.id)).state).toBe('running')
  })

  it('do not wake it by being open', async () => {
    const capsule = await platform.create({ auto_resume: true })
    await openTalker(capsule, 'talker')
    await pause(capsule)
    const other = await platform.create()
    await json(await echo(other), 200)
    expect((await platform.get(capsule.id)).state).toBe('paused')
  })

  it('survive a restart of the host agent and a resume in one', async () => {
    const capsule = await platform.create()
    const socket = await openTalker(capsule, 'talker')
    await pause(capsule)
    await platform.host.stop()
    await platform.host.start()
    await resume(capsule)
    await socket.send(line('again'))
    expect((await readUntil(socket, 'again 1\n')).text).toBe('again 1\n')
  }, 30_000)

  it('can be taken up with an offset while it is paused, over a restart of the control plane', async () => {
    const capsule = await platform.create()
    await openTalker(capsule, 'talker')
    await pause(capsule)
    await platform.restart()
    const back = platform.open(at(capsule, '/processes/talker/stream?from_offset=3'))
    await back.opened()
    await resume(capsule)
    await back.send(line('again'))
    expect((await readUntil(back, 'again 1\n')).text).toBe('again 1\n')
    const whole = platform.open(at(capsule, '/processes/talker/stream?from_offset=0'))
    expect((await readUntil(whole, 'again 1\n')).text).toBe('up\nagain 1\n')
  }, 30_000)

  it('are told how it ended when it ends instead', async () => {
    const capsule = await platform.create()
    const socket = await openTalker(capsule, 'talker')
    await pause(capsule)
    expect((await platform.call('DELETE', at(capsule, ''))).status).toBe(204)
    expect((await socket.until('error')).at(-1)).toMatchObject({ code: 'invalid_state', fatal: true })
  })

  it('of terminals go on as well', async () => {
    const capsule = await platform.create()
    const socket = platform.open(at(capsule, '/pty'))
    await socket.send({
      type: 'start',
      cmd: '/bin/sh',
      args: ['-c', 'stty -echo; echo up; read line; echo "got $line"'],
    })
    const read = async (text: string): Promise<void> => {
      for (let seen = ''; !seen.includes(text); ) {
        const frame = await socket.frame()
        if (frame === undefined || frame.type === 'error') throw new Error(JSON.stringify(frame ?? seen))
        if (frame.type === 'output') seen += Buffer.from(String(frame.data), 'base64').toString()
      }
    }
    await read('up')
    await pause(capsule)
    await socket.send({ type: 'input', data: Buffer.from('typed asleep\n').toString('base64') })
    await resume(capsule)
    await read('got typed asleep')
  }, 30_000)
})

describe('a foreground command under way', () => {
  it('is answered after pause and resume, its input and deadline included', async () => {
    const capsule = await platform.create()
    const asked = platform.call('POST', at(capsule, '/exec'), {
      cmd: '/bin/sh',
      args: ['-c', 'cat; until [ -e go ]; do sleep 0.02; done; echo done'],
      stdin: 'input ',
      timeout_sec: 0,
    })
    await expect.poll(() => platform.host.capsules.get(capsule.id)?.processes.length).toBe(1)
    await pause(capsule)
    await resume(capsule)
    await json(await platform.call('POST', at(capsule, '/files/mkdir'), { path: 'go' }), 200)
    expect(await json(await asked, 200)).toMatchObject({ stdout: 'input done\n', exit_code: 0 })
  }, 30_000)

  it('is killed after the resume when its caller hung up during the pause', async () => {
    const capsule = await platform.create()
    const hangUp = new AbortController()
    const asked = fetch(`${platform.url}${at(capsule, '/exec')}`, {
      method: 'POST',
      headers: { 'x-api-key': platform.key, 'content-type': 'application/json' },
      body: JSON.stringify({ cmd: 'sleep', args: ['600'], timeout_sec: 0 }),
      signal: hangUp.signal,
    })
    const running = () => platform.host.capsules.get(capsule.id)?.processes.filter((process) => process.running).length
    await expect.poll(running).toBe(1)
    await pause(capsule)
    hangUp.abort()
    await expect(asked).rejects.toThrow()
    await resume(capsule)
    await expect.poll(running).toBe(0)
  }, 30_000)
})

describe('a rollback', () => {
  it('ends streams of processes that did not exist, and lets older ones go on', async () => {
    const capsule = await platform.create()
    const older = await openTalker(capsule, 'older')
    const checkpoint = await json<{ id: string }>(
      await platform.call('POST', at(capsule, '/checkpoints'), { name: 'here' }),
      201,
    )
    const newer = await openTalker(capsule, 'newer')
    await older.send(line('undone'))
    await readUntil(older, 'undone 1\n')
    await json(await platform.call('POST', at(capsule, `/checkpoints/${checkpoint.id}/rollback?wait_sec=30`)), 200)
    expect((await newer.until('error')).at(-1)).toMatchObject({ code: 'rolled_back', fatal: true })
    await older.send(line('redone'))
    expect((await readUntil(older, 'redone 1\n')).text).toBe('redone 1\n')
  }, 30_000)
})
