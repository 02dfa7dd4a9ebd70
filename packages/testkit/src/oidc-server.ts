import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What the server says of somebody beside the subject, which is what they log in as. */
export interface OidcPerson {
  readonly email?: string
  readonly email_verified?: boolean | string
  readonly name?: string
}

/** A provider of OpenID Connect with pages of its own, on a port of this machine. */
export interface OidcServer extends AsyncDisposable {
  readonly issuer: string
  readonly clientId: string
  readonly clientSecret: string
  /** Everybody who can log in, by their login; with any password. */
  readonly people: Map<string, OidcPerson>
}

/** What a test says of the server. */
export interface OidcServerOptions {
  /** Where it may send browsers back to. */
  readonly redirectUris: readonly string[]
  /** @default a free one */
  readonly port?: number
  /** @default one whose characters mean something in forms and headers */
  readonly clientSecret?: string
}

const CLIENT_ID = 'wrenn'
const CLIENT_SECRET = 'not a secret: &=%+'

/** The certified server `oidc-provider`, with its pages for development: a login and a consent. */
export async function startOidcServer({
  redirectUris,
  port = 0,
  clientSecret = CLIENT_SECRET,
}: OidcServerOptions): Promise<OidcServer> {
  // Most tests need none of it.
  const { default: Provider } = await import('oidc-provider')
  let serve: RequestListener | undefined
  const server = createServer((request, response) => serve?.(request, response))
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  // Another site than the platform's: browsers make a difference.
  const issuer = `http://localhost:${(server.address() as AddressInfo).port}` // it listens on a port
  const people = new Map<string, OidcPerson>()
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: clientSecret,
        redirect_uris: [...redirectUris],
        grant_types: ['authorization_code'],
      },
    ],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    findAccount: (_context, id) => {
      const person = people.get(id)
      return person && { accountId: id, claims: () => Promise.resolve({ sub: id, ...person }) }
    },
    pkce: { required: () => true },
    cookies: { keys: ['of tests'] },
    ttl: { AuthorizationCode: 60, Grant: 600, Interaction: 600, Session: 600, AccessToken: 600, IdToken: 600 },
  })
  serve = provider.callback()
  return {
    issuer,
    clientId: CLIENT_ID,
    clientSecret,
    people,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
