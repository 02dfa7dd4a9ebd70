import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { capsule, FakeServer, ID, KEY, sendJson } from './fake-server.fixture.js'
import { Wrenn } from './index.js'

let server: FakeServer
let ports: object

beforeEach(async () => {
  server = await new FakeServer().start()
  server.handler = ({ path }, response) => sendJson(response, path.endsWith('/ports') ? ports : capsule('running'))
})
afterEach(async () => {
  await server[Symbol.asyncDispose]()
})

const open = async () => await new Wrenn({ apiUrl: server.url, apiKey: KEY }).capsules.get(ID)

describe('a port of a capsule', () => {
  it('has a host name and a URL below the domain that the platform names', async () => {
    ports = { access: 'public', domain: 'sbx.example:8000' }
    const found = await open()
    expect(await found.getHost(8080)).toBe(`8080-${ID}.sbx.example:8000`)
    expect(await found.url(8080)).toBe(`http://8080-${ID}.sbx.example:8000/`)
    expect(await found.ports()).toEqual({ access: 'public', domain: 'sbx.example:8000', token: undefined })
    await expect(found.getHost(0)).rejects.toMatchObject({ code: 'invalid_request' })
  })

  it('has its token in the URL when it is private', async () => {
    ports = { access: 'private', domain: 'localhost:8000', token: 'wpt_x' }
    expect(await (await open()).url(80)).toBe(`http://80-${ID}.localhost:8000/?wrenn_port_token=wpt_x`)
  })

  it('is made private by create and update', async () => {
    const wrenn = new Wrenn({ apiUrl: server.url, apiKey: KEY })
    const made = await wrenn.capsules.create({ portAccess: 'private' })
    await made.update({ portAccess: 'public' })
    const bodies = server.seen.flatMap(({ body }) => (body === '' ? [] : [JSON.parse(body)]))
    expect(bodies.map(({ port_access }) => port_access)).toEqual(['private', 'public'])
  })
})
