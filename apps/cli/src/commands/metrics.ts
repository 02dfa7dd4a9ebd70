import { type MetricsHistory, type MetricsPoint, type MetricsRange, metricsRanges } from '@wrenn/sdk'
import { type Command, Option } from 'commander'
import { findCapsule } from '../capsule-view.js'
import { type CommonOptions, contextOf, withJson } from '../context.js'
import { sparkline } from '../sparkline.js'
import { showBytes } from '../units.js'

const WIDTH = 48

/** `wrenn capsule metrics`. */
export function addMetrics(capsule: Command): void {
  const command = capsule
    .command('metrics <capsule>')
    .description('show what a capsule has used, also of one that is asleep')
    .addOption(new Option('--range <range>', 'how far back').choices(Object.keys(metricsRanges)).default('1h'))
  withJson(command).action(async (id: string, options: CommonOptions & { readonly range: MetricsRange }) => {
    const context = contextOf(options)
    const history = await (await findCapsule(context, id)).metricsHistory(options.range)
    context.output.result(toJson(history), () => show(history, Date.now()))
  })
}

/** Names as the API has them. */
function toJson({ range, stepMs, points }: MetricsHistory): object {
  return {
    range,
    step_sec: stepMs / 1000,
    points: points.map((point) => ({
      timestamp_unix: point.timestamp.getTime() / 1000,
      cpu_pct: point.cpuPct,
      cpu_max_pct: point.cpuMaxPct,
      mem_bytes: point.memoryBytes,
      disk_bytes: point.diskBytes,
      net_rx_bytes: point.netRxBytes,
      net_tx_bytes: point.netTxBytes,
    })),
  }
}

const showPercent = (value: number): string => `${value.toFixed(1)} %`

function show({ range, stepMs, points }: MetricsHistory, nowMs: number): string {
  if (points.length === 0)
    return `Nothing was measured in the last ${range}: it did not run, or has only just begun to.`
  const rate = (count: number | undefined): number | undefined => count && count / (stepMs / 1000)
  const showRate = (value: number): string => `${showBytes(value)}/s`
  const lines: readonly [string, (point: MetricsPoint) => number | undefined, (value: number) => string][] = [
    ['CPU', ({ cpuPct }) => cpuPct, showPercent],
    ['Memory', ({ memoryBytes }) => memoryBytes, showBytes],
    ['Disk', ({ diskBytes }) => diskBytes, showBytes],
    ['Received', ({ netRxBytes }) => rate(netRxBytes), showRate],
    ['Sent', ({ netTxBytes }) => rate(netTxBytes), showRate],
  ]
  const span = { fromMs: nowMs - metricsRanges[range] * 1000, toMs: nowMs, width: WIDTH }
  return lines
    .map(([name, of, format]) => {
      const values = points.map((point) => ({ atMs: point.timestamp.getTime(), value: of(point) }))
      const known = values.flatMap(({ value }) => (value === undefined ? [] : [value]))
      const latest = known.at(-1)
      if (latest === undefined) return `${name.padEnd(9)} not measured`
      return `${name.padEnd(9)} ${sparkline(values, span)}  ${format(latest)}, at most ${format(Math.max(...known))}`
    })
    .join('\n')
}
