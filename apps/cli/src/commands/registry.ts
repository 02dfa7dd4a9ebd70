import { AppError } from '@wrenn/base'
import type { RegistryLoginInfo } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { table } from '../output.js'
import { readSecret } from '../terminal/secret.js'
import { showSpan } from '../units.js'

const help = `
Examples:
  wrenn registry login ghcr.io robot < token
  wrenn registry ls
  wrenn registry logout ghcr.io`

/** `wrenn registry`. */
export function addRegistry(program: Command): void {
  const registry = program
    .command('registry')
    .description("how your team's builds log in at registries of images")
    .addHelpText('after', help)
  addLogin(registry)
  addList(registry)
  addLogout(registry)
}

function addLogin(registry: Command): void {
  const command = registry
    .command('login <registry> <username>')
    .description('keep a login, in the place of an earlier one there')
    .addHelpText(
      'after',
      '\nThe password, or token, is asked for, or read from the standard input: one line. Builds of the whole team ask with it; it is encrypted, and shown to nobody.\nDocker Hub is docker.io.\n\nExample:\n  wrenn registry login docker.io ourselves < token',
    )
  withJson(command).action(async (host: string, username: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { registries } = await connect(config)
    const password = await readSecret(`Password of ${username} at ${host}: `)
    if (password === '') throw new AppError('invalid_request', 'The password is empty; the standard input gives it.')
    const login = await registries.login(host, username, password)
    output.result(toJson(login), () => `${login.registry} as ${login.username}`)
  })
}

function addList(registry: Command): void {
  const command = registry.command('ls').description('list where builds of the team log in')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const logins = await (await connect(config)).registries.list()
    output.result(logins.map(toJson), () => {
      const now = Date.now()
      const rows = logins.map((login) => [login.registry, login.username, showSpan(now - login.updatedAt.getTime())])
      return table(['REGISTRY', 'USER', 'AGE'], rows)
    })
  })
}

function addLogout(registry: Command): void {
  const command = registry.command('logout <registry>').description('forget the login there')
  withJson(command).action(async (host: string, options: CommonOptions) => {
    const { config, output } = contextOf(options)
    await (await connect(config)).registries.logout(host)
    output.result({ removed: host }, () => host)
  })
}

function toJson({ registry, username, createdAt, updatedAt }: RegistryLoginInfo): object {
  return { registry, username, created_at: createdAt, updated_at: updatedAt }
}
