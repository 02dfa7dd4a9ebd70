import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttpsServer, get } from 'node:https'
import { describe, expect, it } from 'vitest'
import { type Credentials, createAuthority, isSoonOver, issueCertificate } from './index.js'

const DOMAIN = 'sbx.test'
const DAY_MS = 24 * 3600 * 1000

/** Asks a server that has these credentials, under a name, and trusts one authority: the body, or why not. */
async function ask(credentials: Credentials, authority: Credentials, servername: string): Promise<string> {
  const server = createHttpsServer(credentials, (_request, response) => response.end('hello'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no address')
    return await new Promise((resolve) => {
      const asked = { host: '127.0.0.1', port: address.port, ca: authority.cert, agent: false }
      get(servername === '127.0.0.1' ? asked : { ...asked, servername }, (response) => {
        response.resume()
        response.once('end', () => resolve('answered'))
      }).once('error', (error: NodeJS.ErrnoException) => resolve(`${error.code}: ${error.message}`))
    })
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

describe('an authority of our own', () => {
  it('vouches for a domain, each name below it, and the loopback address', async () => {
    const authority = await createAuthority('Wrenn', [DOMAIN])
    const server = await issueCertificate(authority, [DOMAIN])
    for (const name of [DOMAIN, `api.${DOMAIN}`, `8080-cl-abc.${DOMAIN}`, '127.0.0.1']) {
      expect(await ask(server, authority, name), name).toBe('answered')
    }
    expect(await ask(server, authority, 'example.com')).toContain('ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('is not believed for any other domain', async () => {
    const authority = await createAuthority('Wrenn', [DOMAIN])
    const foreign = await issueCertificate(authority, ['example.com'])
    expect(await ask(foreign, authority, 'example.com')).toContain('permitted subtree violation')
  })

  it('is the root of what it issues, and can issue no other authority', async () => {
    const authority = new X509Certificate((await createAuthority('Wrenn', [DOMAIN])).cert)
    const issued = await issueCertificate(await createAuthority('Wrenn', [DOMAIN]), [DOMAIN])
    expect(authority.ca).toBe(true)
    expect(authority.verify(authority.publicKey)).toBe(true)
    expect(new X509Certificate(issued.cert).ca).toBe(false)
  })

  it('says in time when a certificate is to be made anew', async () => {
    const { cert } = await issueCertificate(await createAuthority('Wrenn', [DOMAIN]), [DOMAIN])
    expect(isSoonOver(cert)).toBe(false)
    expect(isSoonOver(cert, new Date(Date.now() + 61 * DAY_MS))).toBe(true)
    expect(isSoonOver(cert, new Date(Date.now() - DAY_MS))).toBe(true)
  })
})
