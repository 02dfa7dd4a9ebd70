import { AppError } from '@wrenn/base'
import { type ApiKeyInfo, type ApiKeyScope, apiKeyScopes } from '@wrenn/sdk'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { z } from 'zod'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withDir, withJson } from '../context.js'
import { printable, table } from '../output.js'
import { parseDurationMs, showSpan } from '../units.js'
import { layoutOf } from '../up/layout.js'
import { requireRoot } from '../up/requirements.js'
import { askControlPlane } from '../up/service-command.js'

const help = `
Examples:
  wrenn key create ci --scope read,templates --expires 90d
  wrenn key ls
  wrenn key revoke key-…
  sudo wrenn key recover`

/** `wrenn key`. */
export function addKey(program: Command): void {
  const key = program.command('key').description('API keys of your team').addHelpText('after', help)
  addList(key)
  addCreate(key)
  addRevoke(key)
  addRecover(key)
}

function addList(key: Command): void {
  const command = key
    .command('ls')
    .description('list keys that are not revoked')
    .addHelpText('after', '\nExample:\n  wrenn key ls --json | jq -r .[].id')
  withJson(command).action(async (options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const keys = await (await connect(config)).apiKeys.list()
    output.result(keys.map(toJson), () => showKeys(keys, new Date()))
  })
}

const createHelp = `
The key is printed and nothing else: it is not stored and cannot be shown again. It may do no more, and lives no longer, than
the key that makes it. Scopes: read (see capsules and templates), capsules (also make, move and use them), templates (also make
and delete snapshots), admin (manage keys, read the audit trail).

Example:
  WRENN_API_KEY=$(wrenn key create ci --scope capsules --expires 90d)`

interface CreateCommandOptions extends CommonOptions {
  readonly scope?: ApiKeyScope[]
  readonly expires?: number
  readonly format?: 'wrn' | 'e2b'
}

function addCreate(key: Command): void {
  const command = key
    .command('create [name]')
    .description('make a key and print it')
    .option('--scope <scopes>', 'what it may do, separated by commas (default: all that your key may)', addScopes)
    .option('--expires <time>', 'when it ends: 12h, 90d (default: with your key, if ever)', parseDurationMs)
    .addOption(new Option('--format <form>', 'e2b: for clients made for E2B').choices(['wrn', 'e2b']).default('wrn'))
    .addHelpText('after', createHelp)
  withJson(command).action(async (name: string | undefined, options: CreateCommandOptions) => {
    const { config, output } = contextOf(options)
    const { scope, expires, format } = options
    if (scope !== undefined && isApiKeyScope(name)) {
      throw new AppError(
        'invalid_request',
        `${name} is a scope: several are separated by commas, --scope ${[...scope, name].join(',')}`,
      )
    }
    const made = await (await connect(config)).apiKeys.create({
      ...(name === undefined ? {} : { name }),
      ...(scope === undefined ? {} : { scopes: scope }),
      ...(expires === undefined ? {} : { expiresInMs: expires }),
      ...(format === undefined ? {} : { format }),
    })
    output.note(`${made.id} (${made.scopes.join(', ')}); this is the only time that the key is shown.`)
    output.result({ ...toJson(made), key: made.key }, () => made.key)
  })
}

/** Of one or more `--scope`. */
function addScopes(text: string, before: readonly ApiKeyScope[] = []): ApiKeyScope[] {
  const scopes = text.split(',').map((word) => {
    if (!isApiKeyScope(word)) throw new InvalidArgumentError(`Scopes are ${apiKeyScopes.join(', ')}.`)
    return word
  })
  return [...new Set([...before, ...scopes])]
}

function isApiKeyScope(word: string | undefined): word is ApiKeyScope {
  return apiKeyScopes.some((scope) => scope === word)
}

function addRevoke(key: Command): void {
  const command = key
    .command('revoke <id...>')
    .description('end keys, everywhere within a second')
    .addHelpText('after', '\nExample:\n  wrenn key revoke key-…')
  withJson(command).action(async (ids: string[], options: CommonOptions) => {
    const { config, output } = contextOf(options)
    const { apiKeys } = await connect(config)
    for (const id of ids) await apiKeys.revoke(id)
    output.result({ revoked: ids }, () => ids.join('\n'))
  })
}

const recoverHelp = `
For when every key that may do everything is lost. It needs root on the machine of the platform, which must be running, and its database
(DATABASE_URL, if that is not the embedded one). The key is printed and nothing else; the audit trail says that the platform itself made it.

Example:
  key=$(sudo wrenn key recover) && echo "$key" | sudo tee /var/lib/wrenn/api-key`

const recoveredSchema = z.looseObject({ id: z.string(), teamId: z.string(), teamName: z.string(), key: z.string() })

function addRecover(key: Command): void {
  const command = key
    .command('recover')
    .description('on the machine of the platform: make a key that may do everything, without one')
    .option('--team <id>', 'whose key it is; needed where there are several teams')
    .addHelpText('after', recoverHelp)
  withDir(withJson(command)).action(async ({ team, ...options }: CommonOptions & { team?: string }) => {
    const { config, output } = contextOf(options)
    requireRoot()
    const layout = layoutOf(config.dir)
    const args = ['recover-key', ...(team === undefined ? [] : [team])]
    const made = await askControlPlane({ args, config, layout, schema: recoveredSchema })
    output.note(`${made.id} of ${printable(made.teamName)}; this is the only time that the key is shown.`)
    const json = { id: made.id, team_id: made.teamId, key: made.key }
    output.result(json, () => made.key)
  })
}

function toJson(key: ApiKeyInfo) {
  return {
    id: key.id,
    name: key.name,
    key_prefix: key.prefix,
    scopes: key.scopes,
    created_by: key.createdBy,
    created_at: key.createdAt,
    expires_at: key.expiresAt,
    last_used: key.lastUsedAt,
  }
}

function showKeys(keys: readonly ApiKeyInfo[], now: Date): string {
  const ago = (time: Date): string => `${showSpan(now.getTime() - time.getTime())} ago`
  const rows = keys.map((key) => [
    key.id,
    printable(key.name),
    `${key.prefix}…`,
    key.scopes.join(', '),
    ends(key.expiresAt, now),
    key.lastUsedAt === undefined ? 'never' : ago(key.lastUsedAt),
    ago(key.createdAt),
  ])
  return table(['ID', 'NAME', 'KEY', 'SCOPES', 'EXPIRES', 'USED', 'MADE'], rows)
}

function ends(expiresAt: Date | undefined, now: Date): string {
  if (expiresAt === undefined) return 'never'
  return expiresAt <= now ? 'expired' : `in ${showSpan(expiresAt.getTime() - now.getTime())}`
}
