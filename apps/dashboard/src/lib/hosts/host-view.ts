import type { HostHealth, HostInfo } from '@wrenn/sdk'
import { counted, mib, relative } from '../format.js'

const HOUR_MS = 3600 * 1000
/** It is renewed while a third of its seven days is left, and tried every ten minutes: with less, something keeps it from that. */
const LATE_MS = 48 * HOUR_MS

/** Something about a host, and in which colour. */
export interface Told {
  readonly text: string
  readonly tone: string
}

const tones: Readonly<Record<string, string>> = {
  pending: 'text-blue',
  online: 'text-sage',
  unreachable: 'text-red',
  revoked: 'text-red',
}

/** Of a newer platform's states, too. */
export function statusTone(status: string): string {
  return tones[status] ?? 'text-amber'
}

/** Until when the platform and the host know each other, unless it is renewed. */
export function certificateOf({ certificateExpiresAt }: Pick<HostInfo, 'certificateExpiresAt'>, now: Date): Told {
  if (certificateExpiresAt === undefined) return { text: 'none', tone: 'text-text-4' }
  const leftMs = certificateExpiresAt.getTime() - now.getTime()
  const when = relative(certificateExpiresAt, now)
  if (leftMs <= 0) return { text: `ended ${when}`, tone: 'text-red' }
  return { text: `ends ${when}`, tone: leftMs < LATE_MS ? 'text-amber' : 'text-text-3' }
}

/** `4 cores, 16 GiB of memory, 200 GiB of disk`: what it has said as it joined. */
export function capacityOf({
  cpuCores,
  memoryMib,
  diskGib,
}: Pick<HostInfo, 'cpuCores' | 'memoryMib' | 'diskGib'>): string {
  return [
    ...(cpuCores === undefined ? [] : [counted(cpuCores, 'core')]),
    ...(memoryMib === undefined ? [] : [`${mib(memoryMib)} of memory`]),
    ...(diskGib === undefined ? [] : [`${mib(diskGib * 1024)} of disk`]),
  ].join(', ')
}

/** Whether capsules run on the platform's own machine, by its health where no host has joined: then none may. */
export function runsItself(hosts: readonly Pick<HostHealth, 'address' | 'answers'>[]): boolean {
  return hosts.some(({ address, answers }) => answers || address.startsWith('unix:'))
}

/** What is lost with a host. */
export type Loss = Pick<HostHealth, 'capsules' | 'templates'>

/** `3 capsules and 1 template`; empty when it is nothing. */
export function lossText({ capsules, templates }: Loss): string {
  return [
    ...(capsules === 0 ? [] : [counted(capsules, 'capsule')]),
    ...(templates === 0 ? [] : [counted(templates, 'template')]),
  ].join(' and ')
}

/** What somebody types who knows what is lost. */
export function lossPhrase(loss: Loss): string {
  return `lose ${lossText(loss)}`
}

/** What is called on a machine that joins, in this order. */
export function joinSteps(origin: string): readonly { readonly command: string; readonly does: string }[] {
  return [
    { command: 'sudo wrenn doctor', does: 'What the machine can do, and what it lacks' },
    { command: `sudo wrenn host join ${origin}`, does: 'Makes its key, and asks for the token' },
    { command: 'sudo wrenn up', does: 'Runs its host agent, and nothing else' },
  ]
}
