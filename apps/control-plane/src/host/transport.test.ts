import { randomBytes } from 'node:crypto'
import { FakeHost } from '@wrenn/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fromHostError } from './errors.js'
import { createHostClient } from './transport.js'

const PIECE = randomBytes(256 * 1024)
const PIECES = 60
const PROCESSES = 6
const CAPSULE = 'cl-0000000000000000000000000'

let host: FakeHost
let link: ReturnType<typeof createHostClient>

beforeAll(async () => {
  host = await FakeHost.start()
  link = createHostClient(host.address)
  await link.client.createCapsule({ capsuleId: CAPSULE, template: 'minimal', vcpus: 1, memoryMib: 64 })
})
afterAll(async () => {
  link.close()
  await host[Symbol.asyncDispose]()
})

/** Feeds a `cat` while reading it. @returns how much came back. */
async function echo(tag: string): Promise<number> {
  const { client } = link
  const process = { selector: { case: 'tag' as const, value: tag } }
  const input = { process, input: { input: { case: 'stdin' as const, value: PIECE } } }
  const feed = async (): Promise<void> => {
    for (let count = 0; count < PIECES; count += 1) await client.sendInput({ capsuleId: CAPSULE, input })
    await client.closeStdin({ capsuleId: CAPSULE, process })
  }
  let fed: Promise<void> | undefined
  let size = 0
  const start = { process: { cmd: 'cat', args: [] }, tag, stdin: true, withOffsets: true }
  for await (const { event } of client.startProcess({ capsuleId: CAPSULE, start })) {
    if (event?.event.case === 'start') fed = feed()
    if (event?.event.case === 'data') size += event.event.value.output.value?.length ?? 0
  }
  await fed
  return size
}

describe('createHostClient', () => {
  // On one HTTP/2 connection this ends with both sides writing and neither reading.
  it('lets large inputs and outputs of several processes pass each other', async () => {
    const sizes = await Promise.all(Array.from({ length: PROCESSES }, (_, index) => echo(`cat-${index}`)))
    expect(sizes).toEqual(Array.from({ length: PROCESSES }, () => PIECE.length * PIECES))
  }, 60_000)

  it('fails a call at once whose host agent stops before it has answered', async () => {
    const stopping = await FakeHost.start()
    const { client, close } = createHostClient(stopping.address)
    const release = stopping.holdCreates()
    const created = client.createCapsule({ capsuleId: CAPSULE, template: 'minimal', vcpus: 1, memoryMib: 64 })
    const failed = created.catch((error: unknown) => fromHostError(error).code)
    await expect.poll(() => stopping.creates).toBe(1)
    await stopping.stop()
    expect(await failed).toBe('host_unavailable')
    release()
    close()
    await stopping[Symbol.asyncDispose]()
  })
})
