import { AppError } from '@wrenn/base'
import { WrennError } from '@wrenn/sdk'
import type { Command } from 'commander'
import { apiUrlOf, connect, loginsOf } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { readSecret } from '../terminal/secret.js'

const help = `
The address is that of the account that you are logged in with; it makes sure that no other one is meant. The password is asked for where you have
not given it in the last 10 minutes. All your sessions and keys end at once; teams that nobody else is in end with the account.

It can be taken back until the day that is printed:
  wrenn login --email ada@example.com --restore

Example:
  wrenn user delete-me ada@example.com`

/** `wrenn user delete-me`. */
export function addDeleteMe(user: Command): void {
  const command = user
    .command('delete-me <address>')
    .description('delete the account that you are logged in with')
    .addHelpText('after', help)
  withJson(command).action(async (address: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    if (config.apiKey) {
      throw new AppError('invalid_request', 'WRENN_API_KEY is set: an account is deleted by its login, without it.')
    }
    const apiUrl = await apiUrlOf(config)
    const logins = loginsOf(config)
    if ((await logins.find(apiUrl)) === undefined) {
      throw new AppError('unauthorized', `You are not logged in on ${apiUrl}: \`wrenn login\`.`)
    }
    const { account } = await connect(config)
    const eraseAt = await account.delete(address).catch(async (error: unknown) => {
      if (!(error instanceof WrennError && error.code === 'confirmation_needed')) throw error
      await account.confirm(await readSecret('Password: '))
      return await account.delete(address)
    })
    await logins.change(apiUrl, async () => undefined)
    output.result(
      { deleted: address, erase_at: eraseAt },
      () => `Deleted. Until ${eraseAt.toISOString()} it comes back with: wrenn login --email ${address} --restore`,
    )
  })
}
