import { z } from 'zod'
import { requestBody, text, timestampSchema } from './common.js'

/** Of each list of a policy. */
export const MAX_EGRESS_ENTRIES = 256
/** Hosts with rules of a policy. */
export const MAX_EGRESS_RULES = 64
/** Headers that a rule sets. */
export const MAX_RULE_HEADERS = 16
/** Of all that rules of a policy set, names and values. */
export const MAX_RULES_BYTES = 64 * 1024

/** Of what a header is set to. */
export const MAX_RULE_VALUE_LENGTH = 8192
/** Of a secret that values refer to. */
export const MAX_SECRET_LENGTH = 4096

const ruleHost = text(255, 1).describe('A domain: example.org, or *.example.org for each name below it.')
const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/, 'must be the name of a header')
const headerValue = z
  .string()
  .min(1)
  .max(MAX_RULE_VALUE_LENGTH)
  .regex(/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/, 'must be visible ASCII characters')
const headerNames = z.array(headerName).min(1).max(MAX_RULE_HEADERS)

/** A rule as it is shown: values never are. */
const egressRuleSchema = z.object({
  host: ruleHost,
  headers: z
    .array(z.string())
    .describe('Names of the headers that are set, in lower case. Their values are shown to nobody.'),
})

/** A rule as it is asked for. */
const egressRuleWishSchema = requestBody({
  host: ruleHost,
  headers: z
    .union([z.record(headerName, headerValue), headerNames], {
      error: `must be names of headers with values of 1 to ${MAX_RULE_VALUE_LENGTH} visible ASCII characters, or a list of 1 to ${MAX_RULE_HEADERS} names`,
    })
    .describe(
      `Headers with their values, which are kept encrypted; or names alone, of headers that keep the values they have. \`\${secrets.NAME}\` in a value stands for a secret of the team.`,
    ),
})

/**
 * Of IPv4; guests have no IPv6. `allow` wins over `deny`, and opens a private range only where it names a part of one. That
 * an entry is an address, a network or a domain is checked where the policy is resolved, so that the message can name the entry.
 */
const policyFields = {
  internet: z.boolean().default(true).describe('Whether public addresses are reachable.'),
  allow: z
    .array(text(255, 1))
    .max(MAX_EGRESS_ENTRIES)
    .default([])
    .describe('Addresses, CIDR ranges and domains (example.org, *.example.org) that are allowed anyway.'),
  deny: z
    .array(text(255, 1))
    .max(MAX_EGRESS_ENTRIES)
    .default([])
    .describe('Addresses, CIDR ranges and domains that are denied.'),
  // Optional: policies that were kept before there was such a thing have none.
  learn: z
    .boolean()
    .optional()
    .describe('Whether what is let through is noted, so that a policy of what was used can be proposed. Absent: no.'),
}
const WHAT = 'What the capsule may reach. Host, other capsules, private and link-local ranges are denied by default.'
const RULES = 'Headers that are set in requests by TLS to named hosts, outside the guest. They open no way to a host.'

/** As it is kept and shown. */
export const egressPolicySchema = requestBody({
  ...policyFields,
  rules: z.array(egressRuleSchema).optional().describe(RULES),
}).describe(WHAT)
/** A policy with its defaults filled in; of its rules, hosts and names of headers. */
export type EgressPolicy = z.output<typeof egressPolicySchema>
/** Headers for one host, by their names. */
export type EgressRule = z.output<typeof egressRuleSchema>

/** As it is asked for. */
export const egressWishSchema = requestBody({
  ...policyFields,
  rules: z.array(egressRuleWishSchema).max(MAX_EGRESS_RULES).optional().describe(RULES),
}).describe(WHAT)
/** A policy with its defaults filled in, and what its rules set. */
export type EgressWish = z.output<typeof egressWishSchema>
/** Headers for one host: with their values, or by name where they keep the values that they have. */
export type EgressRuleWish = z.output<typeof egressRuleWishSchema>

/** Body of `PUT /v1/capsules/{id}/egress`: the whole policy; what is left out has its default. */
export const setEgressSchema = egressWishSchema.meta({ id: 'EgressPolicy' })

/** Answer of `PUT /v1/capsules/{id}/egress`. */
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

/** Why an attempt was refused by name. */
export const refusalReasons = ['denied', 'not_allowed', 'no_name', 'no_address', 'too_many'] as const

const refusalSchema = z.object({
  name: z.string().optional().describe('The host that was asked for; absent when the attempt named none.'),
  address: z.string().optional().describe('Where the connection went; absent for a question to the resolver.'),
  port: z.int(),
  reason: z
    .enum(refusalReasons)
    .describe(
      '`denied`: `deny` has the name. `not_allowed`: nothing allows it. `no_name`: it names no host. `no_address`: the name leads nowhere that may be reached. `too_many`: too much at once.',
    ),
  rule: z.string().optional().describe('The entry of the policy that refused, where one did.'),
  count: z.int().describe('How often.'),
  last_at: timestampSchema,
})

/** Of what a destination's packets were. */
export const destinationProtocols = ['tcp', 'udp', 'icmp'] as const
/** Who told a destination's name. */
export const nameSources = ['connection', 'lookup'] as const

const destinationSchema = z.object({
  protocol: z.enum(destinationProtocols),
  name: z.string().optional().describe('The host, where something told it.'),
  named_by: z
    .enum(nameSources)
    .optional()
    .describe('`connection`: it said the name itself. `lookup`: the resolver had answered the name with this address.'),
  address: z.string().describe('Of a name that connections say, the one that was used last.'),
  port: z.int().describe('0 for `icmp`.'),
  count: z.int().describe('Connections, or flows of datagrams.'),
})

const learnedSchema = z.object({
  destinations: z
    .array(destinationSchema)
    .describe('What was used since `learn` was switched on; the most used first.'),
  complete: z
    .boolean()
    .describe(
      'False when more was used than is kept, some of it is not known any more, or the proposal has not room for all.',
    ),
  proposal: egressPolicySchema.describe('A policy that allows what was used, and nothing else.'),
})
/** What a capsule with a policy that learns has used. */
export type Learned = z.infer<typeof learnedSchema>

/** Answer of `GET /v1/capsules/{id}/egress`. */
export const egressStatusSchema = egressSchema
  .extend({
    refused: z
      .array(refusalSchema)
      .describe(
        'Attempts that were refused by name since the capsule last started, resumed or went back; the newest first, at most 512.',
      ),
    learned: learnedSchema.optional().describe('While the policy says `learn`, unless the host cannot tell just now.'),
  })
  .meta({ id: 'EgressStatus' })
/** What a capsule may reach, and what it was refused. */
export type EgressStatus = z.infer<typeof egressStatusSchema>
