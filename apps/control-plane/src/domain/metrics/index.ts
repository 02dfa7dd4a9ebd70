export { MetricsCollector } from './collector.js'
export { CapsuleHistory, type MetricsHistory, type MetricsSpan } from './history.js'
export { MetricsSweeper } from './sweeper.js'
