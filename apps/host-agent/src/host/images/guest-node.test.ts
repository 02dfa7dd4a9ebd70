import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { copyFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { chooseNode, identityOfNodes } from './guest-node.js'

let dir = ''
/** Starts, and does nothing that is asked of it. */
let unfit = ''

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'wrenn-guest-node-test-'))
  unfit = join(dir, 'unfit')
  await copyFile('/bin/false', unfit)
})
afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

const why = process.getuid?.() === 0 ? '' : ' (skipped: chroot needs root)'
/** One that guests can run: that of these tests, or, where that is a distribution's, the one that is installed for guests. */
const installed = fileURLToPath(
  new URL(`../../../../guest-agent/runtime/node_modules/node-linux-${process.arch}/bin/node`, import.meta.url),
)
const fit = existsSync(installed) ? installed : process.execPath
const { stdout: fitVersion } = spawnSync(fit, ['--version'], { encoding: 'utf8' })

describe.skipIf(why !== '')(`the Node.js of guests${why}`, () => {
  it("is the machine's own where that runs alone and gives up rights", async () => {
    const { path, choice } = await chooseNode({ host: fit, bundled: unfit }, dir)
    expect(path).toBe(fit)
    expect(choice).toMatchObject({ version: fitVersion.trim(), isHosts: true })
    expect(await readdir(dir)).toEqual(['unfit'])
  })

  it('is the one installed for guests where the own one is unfit, and says why', async () => {
    const { path, choice } = await chooseNode({ host: unfit, bundled: fit }, dir)
    expect(path).toBe(fit)
    expect(choice).toMatchObject({ version: fitVersion.trim(), isHosts: false, reason: expect.stringContaining(unfit) })
  })

  it('is told to be missing when neither will do, with what each one said', async () => {
    const script = join(dir, 'script')
    await writeFile(script, '#!/bin/sh\n', { mode: 0o755 })
    const none = chooseNode({ host: script, bundled: join(dir, 'nowhere') }, dir)
    await expect(none).rejects.toMatchObject({
      code: 'invalid_config',
      message: expect.stringMatching(/not a dynamic executable.*not installed.*npm ci/s),
    })
    await expect(chooseNode({ host: unfit }, dir)).rejects.toThrow('it said nothing')
  })
})

describe('what a drive was made from', () => {
  it('is another one when a Node.js that may be the answer is installed', async () => {
    const alone = await identityOfNodes({ bundled: join(dir, 'nowhere') })
    expect(alone).toBe(await identityOfNodes({}))
    expect(await identityOfNodes({ bundled: unfit })).not.toBe(alone)
  })
})
