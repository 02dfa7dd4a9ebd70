import { z } from 'zod'
import { requestBody, text } from './common.js'

/**
 * Of IPv4; guests have no IPv6. `allow` wins over `deny`, and opens a private range only where it names a part of one. That
 * an entry is an address or a network is checked where the policy is resolved, so that the message can name the entry.
 */
export const egressPolicySchema = requestBody({
  internet: z.boolean().default(true).describe('Whether public addresses are reachable.'),
  allow: z.array(text(255, 1)).max(256).default([]).describe('Addresses or CIDR ranges that are allowed anyway.'),
  deny: z.array(text(255, 1)).max(256).default([]).describe('Addresses or CIDR ranges that are denied.'),
}).describe('What the capsule may reach. Host, other capsules, private and link-local ranges are denied by default.')
/** A policy with its defaults filled in. */
export type EgressPolicy = z.output<typeof egressPolicySchema>

/** Body of `PUT /v1/capsules/{id}/egress`: the whole policy; what is left out has its default. */
export const setEgressSchema = egressPolicySchema.meta({ id: 'EgressPolicy' })

/** Answer of `GET` and `PUT /v1/capsules/{id}/egress`. */
export const egressSchema = z
  .object({
    policy: egressPolicySchema,
    in_force: z
      .boolean()
      .describe('Whether the host has it: from then on for every packet, also of a capsule that is paused and wakes.'),
  })
  .meta({ id: 'Egress' })
/** What a capsule may reach, and whether its host knows. */
export type Egress = z.infer<typeof egressSchema>
