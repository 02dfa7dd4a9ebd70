import { AppError } from '@wrenn/base'
import { describe, expect, it } from 'vitest'
import { readProviders } from './settings.js'

const acme = {
  WRENN_OIDC_PROVIDERS: 'acme',
  WRENN_OIDC_ACME_ISSUER: 'https://acme.example',
  WRENN_OIDC_ACME_CLIENT_ID: 'wrenn',
  WRENN_OIDC_ACME_CLIENT_SECRET: 'of acme',
}
const github = { WRENN_OAUTH_GITHUB_CLIENT_ID: 'wrenn', WRENN_OAUTH_GITHUB_CLIENT_SECRET: 'of github' }

function problem(env: Record<string, string>): string {
  try {
    readProviders(env)
  } catch (error) {
    if (AppError.is(error, 'invalid_config')) return error.message
    throw error
  }
  return 'none'
}

describe('the settings of providers', () => {
  it('are none where none are set', () => {
    expect(readProviders({})).toEqual([])
    expect(readProviders({ WRENN_OIDC_PROVIDERS: '', WRENN_OAUTH_GITHUB_CLIENT_ID: '' })).toEqual([])
  })

  it('know GitHub, and GitHub Enterprise Servers with their API', () => {
    expect(readProviders(github)).toMatchObject([
      { id: 'github', name: 'GitHub', url: 'https://github.com', apiUrl: 'https://api.github.com' },
    ])
    const ours = { ...github, WRENN_OAUTH_GITHUB_URL: 'https://git.acme.example/' }
    expect(readProviders(ours)).toMatchObject([
      { url: 'https://git.acme.example', apiUrl: 'https://git.acme.example/api/v3' },
    ])
    const apart = { ...ours, WRENN_OAUTH_GITHUB_API_URL: 'https://api.acme.example/' }
    expect(readProviders(apart)).toMatchObject([{ apiUrl: 'https://api.acme.example' }])
  })

  it('know any number of others, in their order and with names of their own', () => {
    const two = {
      ...acme,
      ...github,
      WRENN_OIDC_PROVIDERS: 'two-parts, acme',
      WRENN_OIDC_ACME_NAME: 'Acme Corp',
      WRENN_OIDC_ACME_SCOPES: 'openid email groups',
      WRENN_OIDC_TWO_PARTS_ISSUER: 'http://localhost:9000/realms/x',
      WRENN_OIDC_TWO_PARTS_CLIENT_ID: 'w',
      WRENN_OIDC_TWO_PARTS_CLIENT_SECRET: 's',
    }
    const defaults = { name: 'Two-parts', scopes: 'openid email profile' }
    expect(readProviders(two)).toMatchObject([
      { id: 'github' },
      { id: 'two-parts', issuer: 'http://localhost:9000/realms/x', ...defaults },
      { id: 'acme', name: 'Acme Corp', clientSecret: 'of acme', scopes: 'openid email groups' },
    ])
  })

  it.each([
    ['WRENN_OAUTH_GITHUB_CLIENT_SECRET', { WRENN_OAUTH_GITHUB_CLIENT_ID: 'x' }],
    ['WRENN_OAUTH_GITHUB_CLIENT_ID', { WRENN_OAUTH_GITHUB_CLIENT_SECRET: 'x' }],
    ['WRENN_OAUTH_GITHUB_URL', { ...github, WRENN_OAUTH_GITHUB_URL: 'http://git.acme.example' }],
    ['WRENN_OAUTH_GITHUB_API_URL', { ...github, WRENN_OAUTH_GITHUB_API_URL: 'git.acme.example' }],
    ['WRENN_OIDC_PROVIDERS', { ...acme, WRENN_OIDC_PROVIDERS: 'Acme' }],
    ['WRENN_OIDC_PROVIDERS', { ...acme, WRENN_OIDC_PROVIDERS: 'acme,github' }],
    ['WRENN_OIDC_PROVIDERS', { ...acme, WRENN_OIDC_PROVIDERS: 'acme,acme' }],
    ['WRENN_OIDC_ACME_ISSUER', { ...acme, WRENN_OIDC_ACME_ISSUER: 'http://acme.example' }],
    ['WRENN_OIDC_ACME_ISSUER', { ...acme, WRENN_OIDC_ACME_ISSUER: 'http://localhost.evil.example' }],
    ['WRENN_OIDC_ACME_CLIENT_ID', { ...acme, WRENN_OIDC_ACME_CLIENT_ID: '' }],
    ['WRENN_OIDC_ACME_CLIENT_SECRET', { ...acme, WRENN_OIDC_ACME_CLIENT_SECRET: '' }],
    ['WRENN_OIDC_ACME_SCOPES', { ...acme, WRENN_OIDC_ACME_SCOPES: 'email' }],
  ])('say that %s is wrong', (name, env) => {
    const text = problem(env)
    expect(text.match(/WRENN_\w+(?=(?:\.\d+)?: )/g)).toEqual([name])
    expect(text).not.toMatch(/of acme|of github/)
  })

  it('say all that is wrong together', () => {
    const text = problem({ ...github, WRENN_OAUTH_GITHUB_URL: 'x', ...acme, WRENN_OIDC_ACME_ISSUER: 'x' })
    expect(text).toMatch(/WRENN_OAUTH_GITHUB_URL: .*WRENN_OIDC_ACME_ISSUER: /)
  })
})
