import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import type { Values } from './series.js'

const HEIGHT = 180
const AXIS_WIDTH = 72
const AXIS_HEIGHT = 28
/** Above, right, below, left; half of the last mark of time is to the right. */
const PADDING: uPlot.Padding = [10, 28, 0, 0]
/** Between marks of time, which are told to the minute. */
const TIME_STEPS = [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200]
/** Of bytes, so that marks are whole MiB and GiB. */
const BINARY_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power)
/** Charts of one page show the same moment. */
const SYNC_KEY = 'stats'
const timeFormat = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })

/** One line of a chart; its colour is a name of the page's. */
export interface Line {
  readonly label: string
  readonly colour: 'sage' | 'amber' | 'blue'
  readonly values: Values
}

/** What a chart draws; times are Unix times. */
export interface ChartData {
  readonly times: readonly number[]
  readonly lines: readonly Line[]
  readonly fromSec: number
  readonly toSec: number
}

/** How it does. */
export interface ChartStyle {
  readonly unit: 'percent' | 'bytes'
  /** Of marks at the side. */
  readonly format: (value: number) => string
  /** The place among the times that is pointed at. */
  readonly onPoint: (index: number | undefined) => void
}

/** A chart in the colours that the page has when it is made. */
export class Chart {
  readonly #data: () => ChartData
  readonly #plot: uPlot
  readonly #watch: ResizeObserver

  /** `data` is what is drawn now. To be disposed. */
  constructor(place: HTMLElement, data: () => ChartData, style: ChartStyle) {
    this.#data = data
    this.#plot = new uPlot(optionsOf(place, data, style), alignedOf(data()), place)
    this.#watch = new ResizeObserver(() => this.#plot.setSize({ width: place.clientWidth, height: HEIGHT }))
    this.#watch.observe(place)
  }

  /** Draws other values of the same lines. */
  update(): void {
    this.#plot.setData(alignedOf(this.#data()))
  }

  dispose(): void {
    this.#watch.disconnect()
    this.#plot.destroy()
  }
}

function optionsOf(place: HTMLElement, data: () => ChartData, { unit, format, onPoint }: ChartStyle): uPlot.Options {
  const page = getComputedStyle(document.documentElement)
  const colour = (name: string): string => page.getPropertyValue(`--${name}`).trim()
  const axis = {
    stroke: colour('text-4'),
    font: `11px ${page.getPropertyValue('--font-mono') || 'monospace'}`,
    grid: { stroke: colour('line-1'), width: 1 },
    ticks: { show: false },
  }
  return {
    width: place.clientWidth,
    height: HEIGHT,
    padding: PADDING,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, sync: { key: SYNC_KEY }, y: false },
    scales: {
      x: { time: true, range: () => [data().fromSec, data().toSec] },
      y: { range: () => [0, topOf(data())] },
    },
    axes: [
      {
        ...axis,
        incrs: TIME_STEPS,
        size: AXIS_HEIGHT,
        values: (_, times) => times.map((time) => timeFormat.format(new Date(time * 1000))),
      },
      {
        ...axis,
        size: AXIS_WIDTH,
        ...(unit === 'bytes' ? { incrs: BINARY_STEPS } : {}),
        values: (_, marks) => marks.map(format),
      },
    ],
    series: [
      {},
      ...data().lines.map(({ label, colour: name }, index) => ({
        label,
        stroke: colour(name),
        width: 1.5,
        // A line has its points in it, and one that has none beside it is no line.
        points: { show: false },
        ...(index === 0 ? { fill: colour('glow-2') } : {}),
      })),
    ],
    hooks: { setCursor: [({ cursor }) => onPoint(cursor.idx ?? undefined)] },
  }
}

function alignedOf({ times, lines }: ChartData): uPlot.AlignedData {
  return [[...times], ...lines.map(({ values }) => [...values])]
}

/** A little room above the highest; a line of next to nothing is not drawn as a mountain. */
function topOf({ lines }: ChartData): number {
  const highest = Math.max(0, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)))
  return Math.max(highest * 1.1, 5)
}
