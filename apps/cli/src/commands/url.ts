import type { PortAccess } from '@wrenn/sdk'
import { type Command, Option } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { parseInteger } from '../units.js'

/** Of commands that say who may reach the ports of a capsule. */
export interface PortAccessOptions {
  readonly ports?: PortAccess
}

/** Read it by {@link portAccessOption}. */
export function withPortAccess(command: Command): Command {
  const text = 'who may reach its ports by URL: whoever knows its id, or whoever has its token'
  return command.addOption(new Option('--ports <access>', text).choices(['public', 'private']))
}

/** What the SDK takes; absent when it was not given. */
export function portAccessOption({ ports }: PortAccessOptions): { portAccess?: PortAccess } {
  return ports === undefined ? {} : { portAccess: ports }
}

const help = `
Examples:
  wrenn capsule exec cl-… -d -- python3 -m http.server 8080
  wrenn capsule url cl-… 8080
  wrenn capsule update cl-… --ports private      from now on its URLs need the token, which this command adds`

/** `wrenn capsule url`: where a port is reached. */
export function addUrl(capsule: Command): void {
  const command = capsule
    .command('url <capsule>')
    .argument('<port>', 'what listens in the capsule, also on 127.0.0.1 or ::1 only', parseInteger)
    .description('print the URL of a port')
    .addHelpText('after', help)
  withJson(command).action(async (id: string, port: number, options: CommonOptions) => {
    const context = contextOf(options)
    const found = await findCapsule(context, id)
    const [url, host, { access, token }] = [await found.url(port), await found.getHost(port), await found.ports()]
    context.output.result({ url, host, access, token }, () => url)
  })
}
