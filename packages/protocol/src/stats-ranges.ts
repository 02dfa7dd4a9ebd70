/** How far back a team may ask what its capsules held, and the steps that it is told in. */
export const statsRanges = {
  '5m': { rangeSec: 300, stepSec: 3 },
  '1h': { rangeSec: 3_600, stepSec: 30 },
  '6h': { rangeSec: 21_600, stepSec: 180 },
  '24h': { rangeSec: 86_400, stepSec: 720 },
  '30d': { rangeSec: 2_592_000, stepSec: 21_600 },
} as const

/** How far back a team may ask what its capsules held. */
export type StatsRange = keyof typeof statsRanges
