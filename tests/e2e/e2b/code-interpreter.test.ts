import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Template } from '@wrenn/protocol'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import {
  type CodeInterpreterSdk,
  type CodeSandbox,
  type Execution,
  installedCodeInterpreter,
  loadCodeInterpreter,
  type RunOptions,
} from '../harness/code-interpreter.js'
import type { Options } from '../harness/e2b-clients.js'
import { eventually } from '../harness/wait.js'

/** The published code interpreter, unmodified, on the template that is built by its first use. */
const { platform, api } = usePlatform()
/** The first create builds the image: packages are downloaded and installed. */
const FIRST_BUILD_MS = 840_000
/** On an emulated CPU that others use too; the clients' own limits are for fast ones. */
const PATIENCE = { timeoutMs: 200_000, requestTimeoutMs: 200_000 }
const PLOT = `
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [4, 5, 6], label='rising')
plt.title('A plot')
plt.xlabel('Time (s)')
plt.show()`

let sdk: CodeInterpreterSdk
let options: Options
let sandbox: CodeSandbox
/** Why the image cannot be had here. */
let missing: string | undefined

/** Runs code that must not fail. */
async function run(code: string, more: RunOptions = {}, where = sandbox): Promise<Execution> {
  const ran = await where.runCode(code, { ...PATIENCE, ...more })
  expect(ran.error?.traceback).toBeUndefined()
  return ran
}

/** Whether the platform has the image already, as one whose directory is kept has after its first time. */
async function isBuilt(): Promise<boolean> {
  const templates = await api.json<Template[]>('GET', '/v1/snapshots', { query: { type: 'base' } })
  return templates.some(({ name, size_bytes: bytes = 0 }) => name === 'code-interpreter' && bytes > 0)
}

beforeAll(async () => {
  if (process.env.WRENN_TEST_CODE_INTERPRETER === undefined && !(await isBuilt())) {
    missing = 'the image of the code interpreter is not built; WRENN_TEST_CODE_INTERPRETER=1 builds it, for minutes'
    return
  }
  sdk = await loadCodeInterpreter()
  options = { apiKey: platform.apiKey, apiUrl: platform.url, sandboxUrl: platform.url }
  const begunAt = performance.now()
  sandbox = await sdk.Sandbox.create({
    ...options,
    timeoutMs: 3_600_000,
    requestTimeoutMs: PATIENCE.requestTimeoutMs,
    envs: { GREETING: 'hello there' },
  })
  const { state, exit } = await eventually(
    'the code interpreter to run',
    async () => {
      const now = await api.json<Seen>('GET', `/v1/capsules/${sandbox.sandboxId}`)
      return now.state === 'pending' || now.state === 'starting' ? undefined : now
    },
    FIRST_BUILD_MS,
  )
  process.stdout.write(`code interpreter: ${state} after ${Math.round(performance.now() - begunAt)} ms\n`)
  if (state === 'running') return
  const why = exit?.message ?? ''
  if (!/apt-get/.test(why)) throw new Error(`The code interpreter did not start: ${why}`)
  missing = `Debian's packages for the code interpreter cannot be had here: ${why}`
}, FIRST_BUILD_MS + 60_000)
beforeEach(({ skip }) => {
  if (missing === undefined) return
  process.stdout.write(`skipped: ${missing}\n`)
  skip(missing)
})
afterAll(async () => {
  await sandbox?.kill()
})

interface Seen {
  readonly state: string
  readonly exit?: { readonly message: string } | null
}

describe('the published code interpreter, unmodified', () => {
  it('runs code, keeps what it has defined, and counts the runs', async () => {
    const first = await run('x = 41\nprint("said")\nx')
    expect([first.text, first.logs.stdout]).toEqual(['41', ['said\n']])
    const second = await run('x += 1; x', { language: 'python' })
    expect(second.text).toBe('42')
    expect(second.executionCount).toBe((first.executionCount ?? 0) + 1)
    expect((await run('"a text"')).text).toBe('a text')
  })

  it('shows a plot as a picture and as a chart', async () => {
    const begunAt = performance.now()
    const [plot] = (await run(PLOT)).results
    process.stdout.write(`code interpreter: a plot after ${Math.round(performance.now() - begunAt)} ms\n`)
    expect(
      Buffer.from(plot?.png ?? '', 'base64')
        .subarray(1, 4)
        .toString(),
    ).toBe('PNG')
    expect(plot?.chart).toMatchObject({
      type: 'line',
      title: 'A plot',
      x_label: 'Time (s)',
      x_unit: 's',
      x_scale: 'linear',
      elements: [
        {
          label: 'rising',
          points: [
            [1, 4],
            [2, 5],
            [3, 6],
          ],
        },
      ],
    })
  })

  it('tells charts of all types', async () => {
    const [figure] = (
      await run(`
import matplotlib.pyplot as plt
figure, axes = plt.subplots(1, 4)
axes[0].scatter([1, 2], [3, 4], label='points')
axes[1].bar(['a', 'b'], [3, 4], label='sold')
axes[2].pie([1, 3], labels=['x', 'y'])
axes[3].boxplot([[1, 2, 3, 4, 20]], labels=['p'])
plt.show()`)
    ).results
    expect(figure?.chart).toMatchObject({
      type: 'superchart',
      elements: [
        {
          type: 'scatter',
          elements: [
            {
              label: 'points',
              points: [
                [1, 3],
                [2, 4],
              ],
            },
          ],
        },
        {
          type: 'bar',
          elements: [
            { label: 'a', value: 3, group: 'sold' },
            { label: 'b', value: 4, group: 'sold' },
          ],
        },
        {
          type: 'pie',
          elements: [
            { label: 'x', angle: 90 },
            { label: 'y', angle: 270 },
          ],
        },
        {
          type: 'box_and_whisker',
          elements: [{ label: 'p', min: 1, first_quartile: 2, median: 3, third_quartile: 4, max: 4, outliers: [20] }],
        },
      ],
    })
  })

  it('shows data frames by their columns, and other results in their formats', async () => {
    const [frame] = (await run('import pandas as pd\npd.DataFrame({"a": [1, None], "b": ["x", "y"]})')).results
    expect(frame).toMatchObject({
      isMainResult: true,
      data: { a: [1, null], b: ['x', 'y'] },
      html: expect.stringContaining('<table'),
    })
    const svg = "<svg xmlns='http://www.w3.org/2000/svg'/>"
    const [html, markdown, latex, picture, json] = (
      await run(`from IPython.display import *
display(HTML("<b>h</b>"), Markdown("*m*"), Latex("$l$"), SVG("${svg}"), JSON({"j": 1}))`)
    ).results
    expect([html?.html, markdown?.markdown, latex?.latex, json?.json]).toEqual(['<b>h</b>', '*m*', '$l$', { j: 1 }])
    expect(picture?.svg).toContain('<svg')
    expect(html?.isMainResult).toBe(false)
  })

  it('streams output as it is printed, in its order', async () => {
    const seen: string[] = []
    const code = `
import os, sys, time
print('before', flush=True)
while not os.path.exists('/home/user/go'): time.sleep(0.05)
print('trouble', file=sys.stderr, flush=True)
print('after', flush=True)`
    await run(code, {
      onStdout: async ({ line }) => {
        seen.push(line.trim())
        // The code waits for what its own output sets off.
        if (line === 'before\n') await sandbox.files.write('/home/user/go', '')
      },
      onStderr: ({ line }) => void seen.push(line.trim()),
    })
    expect(seen).toEqual(['before', 'trouble', 'after'])
  })

  it('says what an error was and where, and keeps the variables', async () => {
    await run('kept = 7')
    const { error } = await sandbox.runCode('def f():\n    return 1 / 0\nf()', PATIENCE)
    expect(error).toMatchObject({ name: 'ZeroDivisionError', value: 'division by zero' })
    expect(error?.traceback).toContain('return')
    expect((await run('kept')).text).toBe('7')
  })

  it("has the sandbox's environment, and gives one run its own", async () => {
    const read = 'import os\n[os.environ.get("GREETING"), os.environ.get("ONCE")]'
    expect((await run(read, { envs: { ONCE: 'a "b"' } })).text).toBe(`['hello there', 'a "b"']`)
    expect((await run(read)).text).toBe("['hello there', None]")
  })

  it('makes contexts that share nothing, restarts and removes them', async () => {
    const context = await sandbox.createCodeContext({ cwd: '/tmp' })
    expect(context).toMatchObject({ language: 'python', cwd: '/tmp' })
    expect((await sandbox.listCodeContexts()).map(({ id }) => id)).toContain(context.id)
    await run('x = 1')
    expect((await run('import os\n("x" in globals(), os.getcwd())', { context })).text).toBe("(False, '/tmp')")
    await run('x = 2', { context })
    expect((await run('x')).text).toBe('1')
    await sandbox.restartCodeContext(context)
    expect((await sandbox.runCode('x', { ...PATIENCE, context })).error?.name).toBe('NameError')
    await sandbox.removeCodeContext(context)
    await expect(sandbox.runCode('x', { ...PATIENCE, context })).rejects.toBeInstanceOf(sdk.NotFoundError)
  })

  it('refuses a language that there is not', async () => {
    await expect(sandbox.runCode('1', { ...PATIENCE, language: 'r' })).rejects.toThrow('400')
    await expect(sandbox.createCodeContext({ language: 'java' })).rejects.toThrow('400')
  })

  it('interrupts code whose client gives up, and keeps the variables', async () => {
    await run('turns = 0')
    const endless = sandbox.runCode('while True: turns += 1', { ...PATIENCE, timeoutMs: 1_000 })
    await expect(endless).rejects.toBeInstanceOf(sdk.TimeoutError)
    expect((await run('type(turns).__name__')).text).toBe('int')
  })

  it('carries several MiB of pictures in one run', async () => {
    const { results } = await run(`
import os
from IPython.display import Image, display
for _ in range(4): display(Image(data=os.urandom(2_000_000), format='png'))`)
    expect(results.map(({ png }) => Buffer.from(png ?? '', 'base64').length)).toEqual(Array(4).fill(2_000_000))
  })

  it('is open to clients of Jupyter Server, with the kernel of the default context', async () => {
    const headers = { 'e2b-sandbox-id': sandbox.sandboxId, 'e2b-sandbox-port': '8888' }
    const response = await fetch(`${platform.url}/api/kernels`, { headers })
    expect(await response.json()).toMatchObject([{ name: 'python3' }])
  })

  it('keeps variables through a pause, and in every copy', async () => {
    await run('import random\nx = [1, 2, 3]')
    await sandbox.pause()
    const again = await sandbox.connect()
    expect((await run('x.append(4); x', {}, again)).text).toBe('[1, 2, 3, 4]')
    const [copy] = await again.fork()
    if (copy === undefined || copy instanceof Error) throw copy ?? new Error('There is no copy.')
    try {
      const draw = 'random.random()'
      expect((await run('x.append(5); x', {}, copy)).text).toBe('[1, 2, 3, 4, 5]')
      expect((await run('x', {}, again)).text).toBe('[1, 2, 3, 4]')
      expect((await run(draw, {}, copy)).text).not.toBe((await run(draw, {}, again)).text)
    } finally {
      await copy.kill()
    }
  })

  it('runs the example', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'wrenn-test-interpreter-'))
    try {
      await mkdir(join(folder, 'node_modules/@e2b'), { recursive: true })
      await symlink(await installedCodeInterpreter(), join(folder, 'node_modules/@e2b/code-interpreter'))
      const example = fileURLToPath(new URL('../../../examples/code-interpreter.mjs', import.meta.url))
      await cp(example, join(folder, 'code-interpreter.mjs'))
      const env = { E2B_API_URL: platform.url, E2B_SANDBOX_URL: platform.url, E2B_API_KEY: platform.apiKey }
      const { stdout } = await promisify(execFile)(process.execPath, ['code-interpreter.mjs'], {
        cwd: folder,
        env: { ...process.env, ...env },
        timeout: PATIENCE.timeoutMs,
      })
      const said = ['7 years', 'plot.png: a line chart of wind and solar', 'last: 2026']
      for (const line of said) expect(stdout).toContain(line)
    } finally {
      await rm(folder, { recursive: true })
    }
  })
})
