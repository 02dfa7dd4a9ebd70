import type { PlanLimits, Quota, QuotaUse, TeamLimits } from '@wrenn/sdk'
import { bytes, mib } from './format.js'

/** A limit of teams and plans, in the order in which they are shown. */
export interface LimitField {
  readonly key: keyof TeamLimits & keyof PlanLimits
  readonly label: string
  /** Of what is typed; bytes are typed as GiB. */
  readonly unit: string
  readonly perUnit: number
  readonly show: (value: number) => string
}

const GIB = 2 ** 30
const plain = (value: number): string => value.toLocaleString('en')

export const limitFields: readonly LimitField[] = [
  { key: 'runningCapsules', label: 'Running capsules', unit: '', perUnit: 1, show: plain },
  { key: 'vcpus', label: 'vCPUs in use', unit: '', perUnit: 1, show: plain },
  { key: 'memoryMib', label: 'Memory in use', unit: 'MiB', perUnit: 1, show: mib },
  { key: 'poolBytes', label: 'Files', unit: 'GiB', perUnit: GIB, show: bytes },
  { key: 'creatingCapsules', label: 'Created at a time', unit: '', perUnit: 1, show: plain },
  { key: 'apiCallsPerMin', label: 'API calls a minute', unit: '', perUnit: 1, show: plain },
]

/** What a team uses, in the order in which it is shown. */
export interface QuotaField extends Pick<LimitField, 'label' | 'show'> {
  readonly key: Exclude<keyof Quota, 'plan'>
  /** What is counted. */
  readonly about: string
}

export const quotaFields: readonly QuotaField[] = [
  { key: 'runningCapsules', label: 'Running capsules', about: 'Those that are about to run count too.', show: plain },
  { key: 'vcpus', label: 'vCPUs', about: 'Of running capsules.', show: plain },
  { key: 'memoryMib', label: 'Memory', about: 'Of running capsules.', show: mib },
  { key: 'poolBytes', label: 'Files', about: 'Of capsules, checkpoints and snapshots.', show: bytes },
  { key: 'capsules', label: 'Capsules', about: 'All that have not ended, paused ones too.', show: plain },
  { key: 'creatingCapsules', label: 'Being created', about: 'At this moment.', show: plain },
  { key: 'apiCallsPerMin', label: 'API calls', about: 'Since this minute began, by everybody.', show: plain },
]

/** How much of a limit is used, 1 for all of it; `undefined` where there is none. */
export function partOf({ used, limit }: QuotaUse): number | undefined {
  if (limit === undefined) return undefined
  return limit === 0 ? 1 : used / limit
}

/** What nobody has set. */
export const noLimits: TeamLimits = {
  runningCapsules: undefined,
  vcpus: undefined,
  memoryMib: undefined,
  poolBytes: undefined,
  creatingCapsules: undefined,
  apiCallsPerMin: undefined,
}

/** `Running capsules: 3 · …`: those that are set. */
export function limitsText(limits: TeamLimits): string {
  return limitFields
    .filter(({ key }) => limits[key] !== undefined)
    .map(({ key, label, show }) => {
      const value = limits[key] ?? 0
      return `${label}: ${value === 0 ? 'no limit' : show(value)}`
    })
    .join(' · ')
}

/** What is typed for each limit: nothing for what is not set, `0` for no limit. */
export function typedLimits(limits: TeamLimits): Record<LimitField['key'], string> {
  const typed = limitFields.map(({ key, perUnit }) => {
    const value = limits[key]
    return [key, value === undefined ? '' : String(value / perUnit)] as const
  })
  return Object.fromEntries(typed) as Record<LimitField['key'], string>
}

/** The reverse of {@link typedLimits}; null is not set. */
export function readLimits(typed: Readonly<Record<LimitField['key'], string>>): PlanLimits {
  const read = limitFields.map(({ key, perUnit }) => {
    const text = typed[key].trim()
    return [key, text === '' ? null : Math.round(Number(text) * perUnit)] as const
  })
  return Object.fromEntries(read)
}
