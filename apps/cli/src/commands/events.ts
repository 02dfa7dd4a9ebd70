import type { WrennEvent } from '@wrenn/sdk'
import type { Command } from 'commander'
import { connect } from '../connection.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { Interrupt } from '../interrupt.js'
import { printable } from '../output.js'

interface EventsOptions extends CommonOptions {
  readonly after?: string
}

const help = `
It goes on until ^C, also while the platform starts again: nothing is missed. \`relist\` says that too much was, so list what you need anew.

Examples:
  wrenn events
  wrenn events --json | jq -r 'select(.type == "capsule.state") | .resource_id + " " + .data.state'
  wrenn events --after "$LAST_ID"         after the last one that was seen, within a day`

/** `wrenn events`. */
export function addEvents(program: Command): void {
  const command = program
    .command('events')
    .description('follow what happens in your team')
    .option('--after <id>', 'begin after this event (default: now)')
    .addHelpText('after', help)
  withJson(command).action(async ({ after, ...options }: EventsOptions) => {
    const { config, output } = contextOf(options)
    using interrupt = new Interrupt()
    const { events } = await connect(config)
    const stream = events.follow({
      ...(after === undefined ? {} : { after }),
      signal: interrupt.signal,
      onConnection: (state) =>
        output.note(state === 'lost' ? 'The platform does not answer; trying again.' : 'It answers again.'),
    })
    for await (const event of stream) output.result(toJson(event), () => showEvent(event))
  })
}

/** As the API has it. */
function toJson({ id, type, at, teamId, resourceId, data }: WrennEvent) {
  return { id, type, at: at.toISOString(), team_id: teamId, resource_id: resourceId, data }
}

function showEvent({ type, at, resourceId, data }: WrennEvent): string {
  const about = Object.entries(data).map(([name, value]) => `${name}=${printable(String(value))}`)
  return [at.toISOString(), type.padEnd(18), printable(resourceId), ...about].join('  ').trimEnd()
}
