import type { Capsule } from '@wrenn/protocol'
import { expect, it } from 'vitest'
import { usePlatform } from '../harness/api.js'
import { spawnWrenn } from '../harness/platform.js'
import { eventually } from '../harness/wait.js'

const { platform, api } = usePlatform()

it('`wrenn events` tells of a capsule from its making to its end', async () => {
  const child = spawnWrenn(platform, ['events', '--json'])
  let text = ''
  child.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  await eventually('ready', async () => (text.includes('"ready"') ? true : undefined))
  const { id } = await api.json<Capsule>('POST', '/v1/capsules', { json: {} })
  await eventually('running', async () =>
    /capsule\.state.*running/.test(text) && text.includes(id) ? true : undefined,
  )
  await api.json('DELETE', `/v1/capsules/${id}`)
  await eventually('stopped', async () => (/capsule\.state.*stopped/.test(text) ? true : undefined))
  child.kill('SIGINT')
  expect(
    text
      .trim()
      .split('\n')
      .every((line) => JSON.parse(line).id),
  ).toBe(true)
})
