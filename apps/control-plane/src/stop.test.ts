import { describe, expect, it } from 'vitest'
import { startPlatform } from './testing/harness.js'

const FILE_BYTES = 32 * 1024 * 1024
/** Longer than the test may take: what is waited for that long fails it. */
const drainMs = 10 * 60_000

describe('a control plane that stops', () => {
  it('finishes a download that is under way, and waits for nobody afterwards', async () => {
    const platform = await startPlatform({ drainMs })
    const { id } = await platform.create()
    const path = `/v1/capsules/${id}/files?path=/tmp/large`
    const sent = await fetch(platform.url + path, {
      method: 'PUT',
      headers: { 'x-api-key': platform.key },
      body: new Uint8Array(FILE_BYTES),
    })
    expect(sent.ok).toBe(true)
    const download = await platform.call('GET', path)
    const stopped = platform[Symbol.asyncDispose]()
    expect((await download.arrayBuffer()).byteLength).toBe(FILE_BYTES)
    await stopped
  }, 60_000)

  it('does not wait for a WebSocket that does not read', async () => {
    const platform = await startPlatform({ drainMs })
    const { id } = await platform.create()
    const socket = platform.open(`/v1/capsules/${id}/exec/stream`)
    await socket.send({ type: 'start', cmd: 'yes' })
    await socket.frame()
    socket.raw.pause()
    await platform[Symbol.asyncDispose]()
    socket.raw.terminate()
  }, 20_000)
})
