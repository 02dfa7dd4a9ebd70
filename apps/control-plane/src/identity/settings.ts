import { AppError, loadConfig } from '@wrenn/base'
import { providerIdSchema } from '@wrenn/protocol'
import { z } from 'zod'

type Environment = Readonly<Record<string, string | undefined>>

/** What a client of a provider needs. */
interface ClientConfig {
  readonly id: string
  /** For people. */
  readonly name: string
  readonly clientId: string
  readonly clientSecret: string
}

/** GitHub, or a GitHub Enterprise Server. */
export interface GithubConfig extends ClientConfig {
  readonly kind: 'github'
  /** Without a slash at its end, as the next one. */
  readonly url: string
  readonly apiUrl: string
}

/** Any provider of OpenID Connect. */
export interface OidcConfig extends ClientConfig {
  readonly kind: 'oidc'
  readonly issuer: string
  readonly scopes: string
}

export type ProviderConfig = GithubConfig | OidcConfig

const GITHUB_URL = 'https://github.com'
const GITHUB_API_URL = 'https://api.github.com'
const GITHUB = 'github'

const address = z
  .url({ protocol: /^https?$/ })
  .refine(isProtected, 'must begin with https://; http:// is for this machine alone')

const githubSchema = z
  .object({
    WRENN_OAUTH_GITHUB_CLIENT_ID: z.string().optional(),
    WRENN_OAUTH_GITHUB_CLIENT_SECRET: z.string().optional(),
    /** Of a GitHub Enterprise Server. */
    WRENN_OAUTH_GITHUB_URL: address.default(GITHUB_URL),
    /** Where that has its API; else `/api/v3` of it. */
    WRENN_OAUTH_GITHUB_API_URL: address.optional(),
  })
  .refine(
    (values) =>
      (values.WRENN_OAUTH_GITHUB_CLIENT_ID ?? values.WRENN_OAUTH_GITHUB_CLIENT_SECRET) === undefined ||
      values.WRENN_OAUTH_GITHUB_CLIENT_ID !== undefined,
    {
      path: ['WRENN_OAUTH_GITHUB_CLIENT_ID'],
      message: 'must be set, as WRENN_OAUTH_GITHUB_CLIENT_SECRET is',
    },
  )
  .refine(
    (values) =>
      values.WRENN_OAUTH_GITHUB_CLIENT_ID === undefined || values.WRENN_OAUTH_GITHUB_CLIENT_SECRET !== undefined,
    {
      path: ['WRENN_OAUTH_GITHUB_CLIENT_SECRET'],
      message: 'must be set, as WRENN_OAUTH_GITHUB_CLIENT_ID is',
    },
  )

/** Ids of providers of OpenID Connect, separated by commas; each has settings of its own, named after it. */
const listSchema = z.object({
  WRENN_OIDC_PROVIDERS: z
    .string()
    .default('')
    .transform((text) =>
      text
        .split(',')
        .map((id) => id.trim())
        .filter((id) => id !== ''),
    )
    .pipe(z.array(providerIdSchema))
    .refine((ids) => !ids.includes(GITHUB), `must not name ${GITHUB}, which has settings of its own`)
    .refine((ids) => new Set(ids).size === ids.length, 'must name each provider once'),
})

/**
 * The providers that the environment names, GitHub first.
 * @throws AppError `invalid_config`, naming every variable that is wrong
 */
export function readProviders(env: Environment): readonly ProviderConfig[] {
  const { WRENN_OIDC_PROVIDERS: ids } = loadConfig(listSchema, env)
  const oidc = ids.map((id) => () => readOidc(id, env))
  return collect([() => readGithub(env), ...oidc])
}

/** All problems are told together. */
function collect(reads: readonly (() => ProviderConfig | undefined)[]): ProviderConfig[] {
  const read: ProviderConfig[] = []
  const problems: string[] = []
  for (const each of reads) {
    try {
      const provider = each()
      if (provider !== undefined) read.push(provider)
    } catch (error) {
      if (!AppError.is(error, 'invalid_config')) throw error
      problems.push(error.message)
    }
  }
  if (problems.length > 0) throw new AppError('invalid_config', problems.join(' '))
  return read
}

function readGithub(env: Environment): GithubConfig | undefined {
  const values = loadConfig(githubSchema, env)
  const { WRENN_OAUTH_GITHUB_CLIENT_ID: clientId, WRENN_OAUTH_GITHUB_CLIENT_SECRET: clientSecret } = values
  if (clientId === undefined || clientSecret === undefined) return undefined
  const url = withoutSlash(values.WRENN_OAUTH_GITHUB_URL)
  const apiUrl = values.WRENN_OAUTH_GITHUB_API_URL ?? (url === GITHUB_URL ? GITHUB_API_URL : `${url}/api/v3`)
  return { kind: 'github', id: GITHUB, name: 'GitHub', clientId, clientSecret, url, apiUrl: withoutSlash(apiUrl) }
}

function readOidc(id: string, env: Environment): OidcConfig {
  const prefix = `WRENN_OIDC_${id.toUpperCase().replaceAll('-', '_')}`
  const [issuer, clientId, clientSecret] = [
    `${prefix}_ISSUER`,
    `${prefix}_CLIENT_ID`,
    `${prefix}_CLIENT_SECRET`,
  ] as const
  const [name, scopes] = [`${prefix}_NAME`, `${prefix}_SCOPES`] as const
  const values = loadConfig(
    z.object({
      [issuer]: address,
      [clientId]: z.string(),
      [clientSecret]: z.string(),
      [name]: z
        .string()
        .max(60)
        .default(`${id.charAt(0).toUpperCase()}${id.slice(1)}`),
      [scopes]: z
        .string()
        .regex(/(?:^|\s)openid(?:\s|$)/, 'must have the scope openid')
        .default('openid email profile'),
    }),
    env,
  )
  const text = (key: string): string => String(values[key])
  return {
    kind: 'oidc',
    id,
    name: text(name),
    clientId: text(clientId),
    clientSecret: text(clientSecret),
    issuer: text(issuer),
    scopes: text(scopes),
  }
}

/** Secrets and codes go there. What is no address is refused as that. */
function isProtected(text: string): boolean {
  return !URL.canParse(text) || new URL(text).protocol === 'https:' || isLoopback(text)
}

/** Whether an address is of this machine, where nobody else listens in. */
export function isLoopback(text: string): boolean {
  return /^(?:localhost|127(?:\.\d+){3}|\[::1\])$/.test(new URL(text).hostname)
}

function withoutSlash(url: string): string {
  return url.replace(/\/+$/, '')
}
