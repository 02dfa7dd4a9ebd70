/** A process that a build needs. */
type Victim = 'control plane' | 'host agent' | 'engine' | 'sandbox'

export interface BuildCase {
  readonly victim: Victim
  /**
   * The step at which it is killed: `build:…` are the control plane's own, all others the host agent's. A sandbox is killed as soon as it is there.
   */
  readonly at: string
  /** Its second stage begins with an image that comes as a file, instead of a built-in template. */
  readonly isOfImage?: boolean
  /** Run with every change; the others by hand, with WRENN_CHAOS_ALL=1. */
  readonly isUsual: boolean
}

const steps = (of: string, names: readonly string[]) => names.map((name) => `${of}:${name}`)
const CREATE = ['guest:launched', ...steps('create', ['restored', 'identified', 'started'])]
const SNAPSHOT = steps('snapshot', ['begun', 'flushed', 'stopped', 'cloned', 'committed', 'kept'])
const DESTROY = steps('destroy', ['begun', 'released', 'removed'])
const IMAGE = steps('image', ['begun', 'unpacked', 'made'])
/** While its guest runs. */
const WORK = steps('build', [
  'started',
  'step_begun',
  'step_done',
  'step_saved',
  'step_kept',
  'stage_kept',
  'finished',
  'saved',
])
const BUILD = [...steps('build', ['taken', 'planned', 'created']), ...WORK, ...steps('build', ['published', 'cleared'])]

/** One of each kind: what the others show is tested without guests, or by the host agent's own steps. */
const usual = new Set([
  ...['host agent create:restored', 'host agent snapshot:cloned'],
  ...['engine build:step_begun', 'engine snapshot:cloned'],
])

const all: readonly Omit<BuildCase, 'isUsual'>[] = [
  ...BUILD.map((at) => ({ victim: 'control plane', at }) as const),
  ...['create:begun', ...CREATE, ...SNAPSHOT, ...DESTROY].map((at) => ({ victim: 'host agent', at }) as const),
  ...[...CREATE, ...SNAPSHOT, ...WORK].map((at) => ({ victim: 'engine', at }) as const),
  ...IMAGE.map((at) => ({ victim: 'host agent', at, isOfImage: true }) as const),
  ...IMAGE.map((at) => ({ victim: 'control plane', at, isOfImage: true }) as const),
  { victim: 'sandbox', at: 'image:begun', isOfImage: true },
]

/** Each process at each step of a build at which it is there. */
export const buildCases: readonly BuildCase[] = all.map((one) => ({
  ...one,
  isUsual: usual.has(`${one.victim} ${one.at}`),
}))
