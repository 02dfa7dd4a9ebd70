import type { AddressInfo } from 'node:net'
import { silentLogger } from '@wrenn/base'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { FakeJupyter, type Kernel } from '../testing/fake-jupyter.js'
import type { CapsuleView } from './context.js'
import { Contexts } from './contexts.js'
import { JupyterApi } from './jupyter-api.js'
import { createInterpreter } from './server.js'

let jupyter: FakeJupyter
let server: ReturnType<typeof createInterpreter>
let contexts: Contexts | undefined
let url: string
let view: CapsuleView
let kernel: Kernel

beforeEach(async () => {
  view = { envs: {}, mark: 'first' }
  kernel = (code, send) => send('stream', { name: 'stdout', text: `ran ${code}\n` })
  jupyter = new FakeJupyter((code, send) => (code.startsWith('__import__') ? undefined : kernel(code, send)))
  contexts = new Contexts({ jupyter: new JupyterApi(await jupyter.listen()), cwd: '/tmp', look: () => view })
  server = createInterpreter({ contexts: () => contexts, log: silentLogger })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  await contexts.warmUp()
})
afterEach(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  await jupyter[Symbol.asyncDispose]()
})

const post = async (path: string, body: unknown, signal?: AbortSignal): Promise<Response> =>
  await fetch(`${url}${path}`, { method: 'POST', body: JSON.stringify(body), ...(signal ? { signal } : {}) })

/** The body, of the shape that the caller knows it to have. */
async function json<T>(response: Response): Promise<T> {
  return JSON.parse(await response.text())
}

async function run(body: object): Promise<object[]> {
  const lines = (await (await post('/execute', body)).text()).trimEnd().split('\n')
  return lines.map((line) => JSON.parse(line))
}

const END = { type: 'end_of_execution' }

describe('the code interpreter', () => {
  it('streams what the code says, to its end', async () => {
    expect(await run({ code: 'a' })).toEqual([{ type: 'stdout', text: 'ran a\n' }, END])
  })

  it('runs code of one context one after the other', async () => {
    const order: string[] = []
    kernel = async (code, send) => {
      order.push(`${code} begins`)
      await new Promise((resolve) => setImmediate(resolve))
      send('stream', { name: 'stdout', text: code })
      order.push(`${code} ends`)
    }
    await Promise.all(['a', 'b', 'c'].map((code) => run({ code })))
    const begun = order.filter((_, index) => index % 2 === 0).map((text) => text.split(' ')[0])
    expect(order).toEqual(begun.flatMap((code) => [`${code} begins`, `${code} ends`]))
  })

  it('gives a run its environment and takes it back, and all runs that of the capsule', async () => {
    view = { envs: { A: 'a "b"\n' }, mark: 'first' }
    await run({ code: 'x', env_vars: { B: '1' } })
    const code = jupyter.asked.slice(-5)
    expect(code[0]).toContain('set_environment')
    expect(code[2]).toBe(`__import__('wrenn_kernel').push_environment("{\\"B\\":\\"1\\"}")`)
    expect(code.slice(3)).toEqual(['x', "__import__('wrenn_kernel').pop_environment()"])
    await run({ code: 'y' })
    expect(jupyter.asked.at(-2)).toContain('pop_environment')
  })

  it('gives a copy of its memory random numbers of its own', async () => {
    await run({ code: 'x' })
    view = { envs: {}, mark: 'second' }
    await run({ code: 'y' })
    expect(jupyter.asked.slice(-2)).toEqual(["__import__('wrenn_kernel').renew()", 'y'])
  })

  it('interrupts code whose client has left, and goes on with the next', async () => {
    const left = new AbortController()
    let end = (): void => {}
    const interrupted = new Promise<void>((resolve) => {
      end = resolve
    })
    kernel = async (code, send) => {
      send('stream', { name: 'stdout', text: 'begun' })
      if (code === 'long') await interrupted
    }
    const response = await post('/execute', { code: 'long' }, left.signal)
    await response.body?.getReader().read()
    left.abort()
    await expect.poll(() => jupyter.asked.at(-1)).toBe('POST /api/kernels/k1/interrupt')
    end()
    expect(await run({ code: 'next' })).toEqual([{ type: 'stdout', text: 'begun' }, END])
  })

  it('says that a kernel has ended, and runs on with the one after it', async () => {
    kernel = async (code, send) => {
      if (code !== 'die') return send('stream', { name: 'stdout', text: 'alive' })
      jupyter.endKernels()
      await new Promise(() => {})
    }
    expect(await run({ code: 'die' })).toMatchObject([{ type: 'error', name: 'KernelEnded' }, END])
  })

  it('makes, lists, restarts and removes contexts', async () => {
    const made = await json<{ id: string }>(await post('/contexts', { cwd: '/', language: 'Python' }))
    expect(made).toMatchObject({ language: 'python', cwd: '/' })
    const list = async () => await json<object[]>(await fetch(`${url}/contexts`))
    expect(await list()).toMatchObject([{ cwd: '/tmp' }, made])
    expect(await run({ code: 'a', context_id: made.id })).toEqual([{ type: 'stdout', text: 'ran a\n' }, END])
    expect((await post(`/contexts/${made.id}/restart`, {})).status).toBe(204)
    expect((await fetch(`${url}/contexts/${made.id}`, { method: 'DELETE' })).status).toBe(204)
    expect(await list()).toHaveLength(1)
    expect((await post('/execute', { code: 'a', context_id: made.id })).status).toBe(404)
  })

  it('starts the default context anew when somebody has removed it', async () => {
    const [first] = await json<{ id: string }[]>(await fetch(`${url}/contexts`))
    await fetch(`${url}/contexts/${first?.id}`, { method: 'DELETE' })
    expect(await run({ code: 'a' })).toEqual([{ type: 'stdout', text: 'ran a\n' }, END])
    expect(jupyter.asked.filter((asked) => asked === 'POST /api/kernels')).toHaveLength(2)
  })

  it.each([
    [{}, 'code is missing.'],
    [{ code: 1 }, 'code must be a text.'],
    [{ code: 'a', language: 'r' }, 'There is no kernel for "r"; this template has python.'],
    [{ code: 'a', language: 'python', context_id: 'x' }, 'context_id and language exclude each other.'],
    [{ code: 'a', env_vars: { A: 1 } }, 'env_vars must map variable names to texts.'],
    [{ code: 'a', env_vars: ['A'] }, 'env_vars must map variable names to texts.'],
  ])('refuses %j', async (body, message) => {
    const response = await post('/execute', body)
    expect([response.status, await response.json()]).toEqual([400, { code: 400, message }])
  })

  it('refuses a directory that is none, and routes that there are not', async () => {
    for (const cwd of ['/no/such', 'tmp', '/etc/hostname']) expect((await post('/contexts', { cwd })).status).toBe(400)
    expect((await fetch(`${url}/else`)).status).toBe(404)
    expect((await fetch(`${url}/health`)).status).toBe(200)
    contexts = undefined
    expect((await fetch(`${url}/health`)).status).toBe(503)
  })
})
