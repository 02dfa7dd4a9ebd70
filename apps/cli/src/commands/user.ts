import { AppError } from '@wrenn/base'
import type { UserInfo, Users } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { printable, table } from '../output.js'
import { readSecret } from '../terminal/secret.js'
import { showSpan } from '../units.js'
import { addDeleteMe } from './delete-me.js'

const help = `
But for activate and delete-me it takes a key with the scope platform, as the platform's first key has it: on the machine, root has it in <dir>/api-key.

Examples:
  sudo wrenn user add ada@example.com Ada --admin     prints what activates the account, once
  wrenn user activate <token>                         asks for the password
  wrenn user ls
  wrenn user disable ada@example.com`

/** `wrenn user`. */
export function addUser(program: Command): void {
  const user = program
    .command('user')
    .description('accounts of people on the whole platform')
    .addHelpText('after', help)
  addList(user)
  addAdd(user)
  addActivate(user)
  const change = (users: Users, id: string, to: Parameters<Users['update']>[1]) => users.update(id, to)
  addChange(user, 'disable', 'end the sessions and keys of accounts, and let nobody log in to them', (users, id) =>
    change(users, id, { status: 'disabled' }),
  )
  addChange(user, 'enable', 'let people log in to their accounts again', (users, id) =>
    change(users, id, { status: 'active' }),
  )
  addChange(user, 'restore', 'take back that people have deleted their accounts', (users, id) => users.restore(id))
  addDeleteMe(user)
  addRemoveFactors(user)
  addChange(user, 'promote', 'make accounts admins of the platform', (users, id) =>
    change(users, id, { isAdmin: true }),
  )
  addChange(user, 'demote', 'make accounts no admins of the platform any more', (users, id) =>
    change(users, id, { isAdmin: false }),
  )
}

function addList(user: Command): void {
  const command = user
    .command('ls')
    .description('list all accounts, oldest first')
    .addHelpText('after', '\nExample:\n  wrenn user ls --json | jq -r .[].email')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const users = await all((await connect(config)).users)
    output.result(users.map(toJson), () => showUsers(users, new Date()))
  })
}

const addHelp = `
No mail is sent. The token is printed and nothing else: it activates the account once, within 7 days, and who has it chooses the
password. The first account of a platform becomes its admin and owns its first team.

Example:
  sudo wrenn user add ada@example.com Ada --admin`

function addAdd(user: Command): void {
  const command = user
    .command('add <email> <name>')
    .description('make an account and print the token that activates it')
    .option('--admin', 'of the platform')
    .addHelpText('after', addHelp)
  withJson(command).action(async (email: string, name: string, options: CommonOptions & { admin?: boolean }) => {
    const { config, output } = contextOf(options)
    const made = await (await connect(config)).users.create(email, name, { isAdmin: options.admin ?? false })
    output.note(`${made.id} is activated by \`wrenn user activate\` with this token, which is shown only now:`)
    const token = { activation_token: made.activationToken, activation_expires_at: made.activationExpiresAt }
    output.result({ ...toJson(made), ...token }, () => made.activationToken)
  })
}

function addActivate(user: Command): void {
  const command = user
    .command('activate <token>')
    .description('activate an account with the token of its link')
    .addHelpText('after', '\nThe password is asked for, or read from stdin.\n\nExample:\n  wrenn user activate <token>')
  withJson(command).action(async (token: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { users } = await connect(config)
    await users.activate(token, await readSecret('Password: '))
    output.result({ activated: true }, () => 'The account is active.')
  })
}

function addChange(
  user: Command,
  verb: string,
  description: string,
  change: (users: Users, id: string) => Promise<UserInfo>,
): void {
  const command = user
    .command(`${verb} <account...>`)
    .description(description)
    .addHelpText('after', `\nAn account is its id or its address.\n\nExample:\n  wrenn user ${verb} ada@example.com`)
  withJson(command).action(async (accounts: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { users } = await connect(config)
    const ids = await idsOf(users, accounts)
    const changed: UserInfo[] = []
    for (const id of ids) changed.push(await change(users, id))
    output.result(changed.map(toJson), () => showUsers(changed, new Date()))
  })
}

const removeFactorsHelp = `
For who has lost the authenticator app, the passkeys and the recovery codes: their password is enough then. Make sure first that it is them who asks. A
mail tells them.

Example:
  wrenn user remove-factors ada@example.com`

function addRemoveFactors(user: Command): void {
  const command = user
    .command('remove-factors <account...>')
    .description('remove what people sign in with beside their passwords')
    .addHelpText('after', removeFactorsHelp)
  withJson(command).action(async (accounts: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { users } = await connect(config)
    const ids = await idsOf(users, accounts)
    for (const id of ids) await users.removeFactors(id)
    output.result({ removed: ids }, () => 'Done.')
  })
}

async function all(users: Users): Promise<UserInfo[]> {
  const list: UserInfo[] = []
  for await (const each of users.list()) list.push(each)
  return list
}

/** @throws AppError `user_not_found` */
async function idsOf(users: Users, accounts: readonly string[]): Promise<string[]> {
  if (accounts.every((account) => !account.includes('@'))) return [...accounts]
  const known = new Map((await all(users)).map(({ email, id }) => [email, id]))
  return accounts.map((account) => {
    const id = account.includes('@') ? known.get(account.toLowerCase()) : account
    if (id === undefined) throw new AppError('user_not_found', `There is no account ${account}.`)
    return id
  })
}

function toJson({ id, email, name, status, isAdmin, createdAt, eraseAt }: UserInfo) {
  return { id, email, name, status, is_admin: isAdmin, created_at: createdAt, erase_at: eraseAt }
}

function showUsers(users: readonly UserInfo[], now: Date): string {
  const rows = users.map(({ id, email, name, status, isAdmin, createdAt }) => [
    id,
    printable(email),
    printable(name),
    status,
    isAdmin ? 'yes' : '',
    `${showSpan(now.getTime() - createdAt.getTime())} ago`,
  ])
  return table(['ID', 'ADDRESS', 'NAME', 'STATUS', 'ADMIN', 'MADE'], rows)
}
