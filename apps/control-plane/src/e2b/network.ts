import { AppError } from '@wrenn/base'
import {
  type EgressPolicy,
  type EgressRuleWish,
  type EgressWish,
  egressWishSchema,
  requestBody,
  text,
} from '@wrenn/protocol'
import { z } from 'zod'

/** All addresses: denied together they are the internet switched off. */
const EVERYWHERE = '0.0.0.0/0'

/** Begins what their proxy would put a token in place of. */
const PLACEHOLDER = '${e2b.'
/** A secret of the team, as their clients refer to it. */
const SECRET = /\$\{e2b\.(secrets\.[^{}]+\})/g

const targets = z.array(text(255, 1)).max(256)
const rules = z.record(
  text(255, 1),
  z
    .array(requestBody({ transform: requestBody({ headers: z.record(z.string(), z.string()).optional() }).optional() }))
    .max(64),
)

/** What is refused by name below: any value is read, so that the refusal can say what it is about. */
const unsupportedFields = { egressProxy: z.unknown().optional() }

/** Which of its fields are supported is said by the functions below. */
export const networkFields = {
  allowOut: targets.optional(),
  denyOut: targets.optional(),
  rules: rules.optional(),
  ...unsupportedFields,
}

/** Of a create. */
export const networkSchema = requestBody({
  ...networkFields,
  allowPublicTraffic: z.boolean().optional(),
  maskRequestHost: z.unknown().optional(),
  httpsPorts: z.unknown().optional(),
})

/** Body of `PUT …/network`; what it leaves out is taken back. */
export const updateNetworkSchema = requestBody({ ...networkFields, allow_internet_access: z.boolean().optional() })

interface NetworkWish {
  readonly allowOut?: readonly string[] | undefined
  readonly denyOut?: readonly string[] | undefined
  readonly rules?: z.output<typeof rules> | undefined
}

/**
 * The policy that says the same; `undefined` when nothing is asked for. In both worlds what is allowed wins over what is denied, and
 * both lists take addresses, networks and domains.
 */
export function egressOf(wish: NetworkWish, internet: boolean | undefined): EgressWish | undefined {
  const denyOut = wish.denyOut ?? []
  const deny = denyOut.filter((target) => target !== EVERYWHERE)
  const allow = [...(wish.allowOut ?? [])]
  const isOff = internet === false || deny.length < denyOut.length
  const rules = rulesOf(wish.rules ?? {})
  if (!isOff && deny.length === 0 && allow.length === 0 && rules.length === 0) return undefined
  return { internet: !isOff, allow, deny, ...(rules.length > 0 && { rules }) }
}

/**
 * Of several rules of a host the later ones win, header by header; what sets nothing is none.
 * @throws AppError `invalid_request`, `not_supported` for what their platform would put tokens into
 */
function rulesOf(wished: NonNullable<NetworkWish['rules']>): EgressRuleWish[] {
  const asked = Object.entries(wished).flatMap(([host, rules]) => {
    const all = rules.flatMap(({ transform }) => Object.entries(transform?.headers ?? {}))
    if (all.some(([, value]) => asOurs(value).includes(PLACEHOLDER))) {
      throw new AppError(
        'not_supported',
        `network.rules of ${host} has a token of iam, which this platform does not make.`,
      )
    }
    const headers = Object.fromEntries(all.map(([name, value]) => [name.toLowerCase(), asOurs(value)]))
    return all.length === 0 ? [] : [{ host, headers }]
  })
  const { success, data, error } = egressWishSchema.shape.rules.safeParse(asked)
  if (success) return data ?? []
  const [issue] = error.issues // which says no value
  const host = asked[Number(issue?.path[0])]?.host ?? ''
  throw new AppError('invalid_request', `network.rules: ${host.slice(0, 100)}: ${issue?.message}.`)
}

function asOurs(value: string): string {
  return value.replaceAll(SECRET, '${$1')
}

/** A policy in their words. What rules set is shown to nobody: an empty text stands for it, which is none that could be set. */
export function networkOf({ internet, allow, deny, rules = [] }: EgressPolicy) {
  const shown = rules.map(({ host, headers }) => {
    return [host, [{ transform: { headers: Object.fromEntries(headers.map((name) => [name, ''])) } }]] as const
  })
  return {
    allowOut: allow,
    denyOut: internet ? deny : [EVERYWHERE, ...deny],
    ...(shown.length > 0 && { rules: Object.fromEntries(shown) }),
  }
}

/** @throws AppError `not_supported`, naming the first of `fields` that asks for something */
export function refuseUnsupported(
  body: Readonly<Record<string, unknown>>,
  fields: readonly string[],
  prefix = '',
): void {
  const asked = fields.find((field) => asksFor(body[field]))
  if (asked === undefined) return
  throw new AppError('not_supported', `${prefix}${asked} is not supported by this platform; see docs/e2b.md.`)
}

/** Clients also send what is empty or switched off. */
function asksFor(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === '') return false
  return typeof value === 'object' ? Object.keys(value).length > 0 : true
}
