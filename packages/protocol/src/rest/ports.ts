import { z } from 'zod'
import { PORT_TOKEN_HEADER, PORT_TOKEN_QUERY } from '../credentials.js'

/** `public`: whoever knows the capsule's id. `private`: whoever has its token, or an API key of its team that may use capsules. */
export const portAccesses = ['public', 'private'] as const
/** Who may reach the ports of a capsule by their URLs. */
export type PortAccess = (typeof portAccesses)[number]

export const portAccessSchema = z.enum(portAccesses)

/** Answer of `GET /v1/capsules/{id}/ports`. */
export const portsSchema = z
  .object({
    access: portAccessSchema,
    domain: z.string().describe('The URL of a port is `http://{port}-{id}.{domain}/`.'),
    token: z
      .string()
      .optional()
      .describe(
        `Of a private capsule: opens its ports as the header ${PORT_TOKEN_HEADER} or the query ${PORT_TOKEN_QUERY}.`,
      ),
  })
  .meta({ id: 'Ports' })
/** How the ports of a capsule are reached. */
export type Ports = z.infer<typeof portsSchema>
