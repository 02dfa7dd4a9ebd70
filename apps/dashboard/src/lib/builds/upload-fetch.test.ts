import { afterEach, describe, expect, it, vi } from 'vitest'
import { uploadFetch } from './upload-fetch.js'

/** What a browser's own does as far as an upload needs it; what it was given to send is kept. */
class FakeRequest extends EventTarget {
  static readonly sent: unknown[] = []
  static fails = false
  readonly upload = new EventTarget()
  readonly status = 200
  readonly statusText = 'OK'
  readonly response = new Blob(['done'])
  open(): void {}
  setRequestHeader(): void {}
  getAllResponseHeaders(): string {
    return 'content-type: text/plain\r\n'
  }
  abort(): void {
    this.dispatchEvent(new Event('abort'))
  }
  send(body: unknown): void {
    FakeRequest.sent.push(body)
    for (const loaded of [2, 5]) this.upload.dispatchEvent(Object.assign(new Event('progress'), { loaded }))
    this.dispatchEvent(new Event(FakeRequest.fails ? 'error' : 'load'))
  }
}

afterEach(() => {
  vi.unstubAllGlobals()
  FakeRequest.sent.length = 0
  FakeRequest.fails = false
})

const url = 'http://wrenn.test/upload'

describe('an upload of a build', () => {
  it('is sent from where it lies, and tells how far it is', async () => {
    vi.stubGlobal('XMLHttpRequest', FakeRequest)
    const told: number[] = []
    const file = new File(['image'], 'app.tar')
    const answer = await uploadFetch((bytes) => told.push(bytes))(url, { method: 'PUT', body: file })
    expect([await answer.text(), told]).toEqual(['done', [2, 3]])
    expect(FakeRequest.sent[0]).toBe(file)
  })

  it('that breaks tells that nothing is there, for it is sent from its begin again', async () => {
    vi.stubGlobal('XMLHttpRequest', FakeRequest)
    FakeRequest.fails = true
    const told: number[] = []
    const sent = uploadFetch((bytes) => told.push(bytes))(url, { method: 'PUT', body: new Blob(['image']) })
    await expect(sent).rejects.toThrow('The connection broke.')
    expect(told).toEqual([2, 3, -5])
  })

  it('is made whole first where it is a stream', async () => {
    vi.stubGlobal('XMLHttpRequest', FakeRequest)
    await uploadFetch(() => {})(url, { method: 'PUT', body: new Blob(['image']).stream() })
    const [sent] = FakeRequest.sent
    expect(sent instanceof Blob && (await sent.text())).toBe('image')
  })
})
