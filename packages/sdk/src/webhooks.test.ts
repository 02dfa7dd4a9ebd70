import { createHmac } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { verifyWebhook } from './index.js'

const KEY = Buffer.alloc(32, 7)
const SECRET = `whsec_${KEY.toString('base64')}`
const OTHER = `whsec_${Buffer.alloc(32, 8).toString('base64')}`
const now = new Date('2026-01-02T03:04:05.000Z')
const body = JSON.stringify({
  ...{ id: 'd-1', event: 'capsule.state', timestamp: '2026-01-02T03:04:00.000Z', team_id: 'team-1' },
  ...{ resource: { type: 'capsule', id: 'cl-1' }, data: { name: 'Zoë', state: 'paused' } },
})
const event = {
  ...{ id: 'd-1', event: 'capsule.state', at: new Date('2026-01-02T03:04:00.000Z'), teamId: 'team-1' },
  ...{ resource: { type: 'capsule', id: 'cl-1' }, data: { name: 'Zoë', state: 'paused' } },
}
const sign = (key: Buffer | string, text: string): Buffer => createHmac('sha256', key).update(text).digest()
const seconds = String(now.getTime() / 1000)
const standard = {
  'webhook-id': 'd-1',
  'webhook-timestamp': seconds,
  'webhook-signature': `v1,${sign(KEY, `d-1.${seconds}.${body}`).toString('base64')}`,
}
const own = {
  'X-Wrenn-Timestamp': now.toISOString(),
  'X-WRENN-SIGNATURE': `sha256=${sign(SECRET, `${now.toISOString()}.${body}`).toString('hex')}`,
}
const refused = { code: 'webhook_invalid' }

describe.each([
  ['Standard Webhooks', standard],
  ['X-WRENN-SIGNATURE', own],
])('a request with the headers of %s', (_, headers) => {
  it('is what it says, from headers of any kind and a body of text or bytes', async () => {
    const bytes = new TextEncoder().encode(body)
    for (const each of [
      headers,
      new Headers(headers),
      Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]])),
    ]) {
      expect(await verifyWebhook({ headers: each, body }, SECRET, { now })).toEqual(event)
      expect(await verifyWebhook({ headers: each, body: bytes }, [OTHER, SECRET], { now })).toEqual(event)
    }
  })

  it('is refused with another body, secret or time', async () => {
    await expect(verifyWebhook({ headers, body: `${body} ` }, SECRET, { now })).rejects.toMatchObject(refused)
    await expect(verifyWebhook({ headers, body }, OTHER, { now })).rejects.toMatchObject(refused)
    for (const ms of [-301_000, 301_000]) {
      const later = new Date(now.getTime() + ms)
      await expect(verifyWebhook({ headers, body }, SECRET, { now: later })).rejects.toMatchObject(refused)
      expect(await verifyWebhook({ headers, body }, SECRET, { now: later, toleranceMs: 600_000 })).toEqual(event)
    }
  })
})

describe('a request', () => {
  it('may have signatures by several secrets', async () => {
    const headers = {
      ...standard,
      'webhook-signature': `v1a,AAAA v1,${'A'.repeat(43)}= ${standard['webhook-signature']}`,
    }
    expect(await verifyWebhook({ headers, body }, SECRET, { now })).toEqual(event)
  })

  it.each([
    {},
    { ...standard, 'webhook-signature': '' },
    { ...standard, 'webhook-signature': 'v1,' },
    { ...standard, 'webhook-signature': 'v1,???' },
    { ...standard, 'webhook-timestamp': 'now' },
    { ...standard, 'webhook-id': 'd-2' },
    { ...own, 'X-WRENN-SIGNATURE': 'sha256=00' },
    { ...own, 'X-Wrenn-Timestamp': 'now' },
  ])('is refused with %j', async (headers) => {
    await expect(verifyWebhook({ headers, body }, SECRET, { now })).rejects.toMatchObject(refused)
  })

  it('is refused by a secret that is none', async () => {
    await expect(verifyWebhook({ headers: standard, body }, 'password', { now })).rejects.toMatchObject(refused)
  })
})
