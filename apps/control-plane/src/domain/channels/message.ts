import { randomUUID } from 'node:crypto'
import type { Message } from '../../notify/index.js'
import type { DeliveryRow } from '../../store/schema.js'

/** An event as targets are told of it. */
export function messageOf(teamId: string, { id, type, at, resource_id, data }: DeliveryRow): Message {
  return {
    id,
    event: type,
    timestamp: at.toISOString(),
    team_id: teamId,
    resource: { type: type.split('.', 1)[0] ?? type, id: resource_id },
    data,
  }
}

/** What tells nothing but that the channel works. */
export function testMessage(teamId: string): Message {
  const [id, timestamp] = [randomUUID(), new Date().toISOString()]
  return { id, event: 'channel.test', timestamp, team_id: teamId, resource: { type: 'channel', id: 'test' }, data: {} }
}
