/** How far back a history may be asked for, in seconds: up to ten minutes in steps of 5 s, up to two hours of 30 s, up to a day of 5 min. */
export const metricsRanges = {
  '5m': 300,
  '10m': 600,
  '1h': 3_600,
  '2h': 7_200,
  '6h': 21_600,
  '12h': 43_200,
  '24h': 86_400,
} as const

/** How far back clients may ask what a capsule used. */
export type MetricsRange = keyof typeof metricsRanges
