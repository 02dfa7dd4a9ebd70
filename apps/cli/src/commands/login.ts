import { hostname } from 'node:os'
import { AppError } from '@wrenn/base'
import { type Account, SecondFactorNeededError, type SignedIn, Wrenn, WrennError } from '@wrenn/sdk'
import type { Command } from 'commander'
import type { CliConfig } from '../config.js'
import { apiUrlOf, connect, loginsOf } from '../connection.js'
import { type CommonOptions, type Context, contextOf, withJson } from '../context.js'
import { Interrupt } from '../interrupt.js'
import { loginOf } from '../login/tokens.js'
import { printable } from '../output.js'
import { createPatientFetch } from '../patient-fetch.js'
import { readSecret } from '../terminal/secret.js'

const help = `
Without --email a code and a link are shown: open the link in any browser that you are logged in with, and approve. The session is
yours: \`wrenn logout\` ends it here, your settings in the dashboard anywhere. WRENN_API_KEY, when it is set, is used instead.

Examples:
  wrenn login
  WRENN_API_URL=https://wrenn.example wrenn login
  wrenn login --email ada@example.org     asks for the password`

interface LoginOptions extends CommonOptions {
  readonly email?: string
  readonly restore?: boolean
  readonly code?: string
}

/** `wrenn login`, `logout` and `whoami`. */
export function addLogin(program: Command): void {
  const login = program
    .command('login')
    .description('log in to a platform as yourself')
    .option('--email <address>', 'with a password instead of the browser')
    .option('--code <code>', 'with --email: of your authenticator app, or a recovery code (default: asked for)')
    .option('--restore', 'with --email: take back that you have deleted your account')
    .addHelpText('after', help)
  withJson(login).action(async (options: LoginOptions) => {
    const context = contextOf(options)
    const { config, output } = context
    const apiUrl = await apiUrlOf(config)
    const signedIn = await signIn(apiUrl, context, options)
    await loginsOf(config).change(apiUrl, async () => loginOf(signedIn))
    if (config.apiKey) output.warn('WRENN_API_KEY is set, so that commands go on with that key.')
    const { email, userId, teamId } = signedIn
    output.result(
      { api_url: apiUrl, email, user_id: userId, team_id: teamId },
      () => `Logged in as ${printable(email)}.`,
    )
  })
  const logout = program
    .command('logout')
    .description('end your session on a platform')
    .addHelpText('after', '\nExample:\n  wrenn logout')
  withJson(logout).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const ended = await signOut(config)
    output.result({ logged_out: ended }, () => (ended ? 'Logged out.' : 'You were not logged in.'))
  })
  const whoami = program
    .command('whoami')
    .description('tell who you are on a platform, and the team you work in')
    .addHelpText('after', '\nExample:\n  wrenn whoami --json | jq -r .team.id')
  withJson(whoami).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const found = await lookUp(config)
    output.result(found, () => describe(found))
  })
}

async function signIn(
  apiUrl: string,
  { output }: Context,
  { email, restore = false, code }: LoginOptions,
): Promise<SignedIn> {
  if (email === undefined && (restore || code !== undefined)) {
    throw new AppError('invalid_request', `${restore ? '--restore' : '--code'} needs --email.`)
  }
  const { account } = new Wrenn({ apiUrl, fetch: createPatientFetch() })
  if (email !== undefined) return await signInByPassword(account, email, { restore, code })
  using interrupt = new Interrupt()
  const { signal } = interrupt
  const login = await account.beginDeviceLogin(`wrenn on ${hostname()}`.slice(0, 100), { signal })
  output.ask(`Open ${login.verificationUriComplete}\nand approve the code ${login.userCode}.`)
  const waiting = output.spinner('waiting for you')
  try {
    return await account.finishDeviceLogin(login, { signal })
  } finally {
    waiting.done()
  }
}

interface PasswordOptions {
  readonly restore: boolean
  readonly code: string | undefined
}

async function signInByPassword(account: Account, email: string, given: PasswordOptions): Promise<SignedIn> {
  try {
    return await account.login(email, await readSecret('Password: '), { restore: given.restore })
  } catch (error) {
    if (!(error instanceof SecondFactorNeededError)) throw error
    const { login } = error
    if (!login.methods.some((method) => method !== 'passkey')) {
      throw new AppError('not_supported', 'This account has passkeys alone; log in by a browser, without --email.')
    }
    const code = (given.code ?? (await readSecret('Code of your authenticator app, or a recovery code: '))).trim()
    const proof = /^[\d\s]{6,7}$/.test(code) ? { code } : { recoveryCode: code }
    return await account.finishLogin(login, proof)
  }
}

/** Whether there was something to end. The session is forgotten here also when the platform does not answer. */
async function signOut(config: CliConfig): Promise<boolean> {
  const apiUrl = await apiUrlOf(config)
  const logins = loginsOf(config)
  if ((await logins.find(apiUrl)) === undefined) return false
  const { account } = await connect({ ...config, apiKey: undefined })
  try {
    await account.logout()
  } catch (error) {
    if (!isOver(error)) throw error
  } finally {
    await logins.change(apiUrl, async () => undefined)
  }
  return true
}

function isOver(error: unknown): boolean {
  return AppError.is(error, 'unauthorized') || (error instanceof WrennError && error.status === 401)
}

/** On the wire of `--json`. */
interface Identity {
  readonly api_url: string
  readonly email: string | undefined
  readonly name: string | undefined
  readonly is_admin: boolean
  readonly team: { readonly id: string; readonly name: string; readonly role: string } | undefined
}

/** A key is nobody; it has a team. */
async function lookUp(config: CliConfig): Promise<Identity> {
  const wrenn = await connect(config)
  const me = await wrenn.account.me().catch((error: unknown) => {
    if (error instanceof WrennError && error.code === 'forbidden') return undefined
    throw error
  })
  const current = (await wrenn.teams.list()).find(({ isCurrent }) => isCurrent)
  return {
    api_url: await apiUrlOf(config),
    email: me?.email,
    name: me?.name,
    is_admin: me?.isAdmin ?? false,
    team: current && { id: current.id, name: current.name, role: current.role },
  }
}

function describe({ api_url, email, name, is_admin, team }: Identity): string {
  const who = email === undefined ? 'An API key' : `${printable(name ?? '')} <${printable(email)}>`
  const where = team === undefined ? 'in no team' : `${team.role} in ${printable(team.name)} (${team.id})`
  return `${who}, ${where}${is_admin ? ', admin of the platform' : ''}, on ${api_url}`
}
