import { AppError } from '@wrenn/base'
import { type EgressPolicy, requestBody, text } from '@wrenn/protocol'
import { z } from 'zod'

/** All addresses: denied together they are the internet switched off. */
const EVERYWHERE = '0.0.0.0/0'

const targets = z.array(text(255, 1)).max(256)

/** What is refused by name below: any value is read, so that the refusal can say what it is about. */
const unsupportedFields = { rules: z.unknown().optional(), egressProxy: z.unknown().optional() }

/** Which of its fields are supported is said by the functions below. */
export const networkFields = {
  allowOut: targets.optional(),
  denyOut: targets.optional(),
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
}

/**
 * The policy that says the same; `undefined` when nothing is asked for. In both worlds what is allowed wins over what is denied, and
 * both lists take addresses, networks and domains.
 */
export function egressOf(wish: NetworkWish, internet: boolean | undefined): EgressPolicy | undefined {
  const denyOut = wish.denyOut ?? []
  const deny = denyOut.filter((target) => target !== EVERYWHERE)
  const allow = [...(wish.allowOut ?? [])]
  const isOff = internet === false || deny.length < denyOut.length
  if (!isOff && deny.length === 0 && allow.length === 0) return undefined
  return { internet: !isOff, allow, deny }
}

/** A policy in their words. */
export function networkOf({ internet, allow, deny }: EgressPolicy) {
  return { allowOut: allow, denyOut: internet ? deny : [EVERYWHERE, ...deny] }
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
