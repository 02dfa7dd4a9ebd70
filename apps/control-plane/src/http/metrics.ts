import { collectDefaultMetrics, Histogram, type OpenMetricsContentType, Registry } from 'prom-client'
import type { App, Services } from './context.js'
import { watchPlatform } from './platform-metrics.js'

/** Lets what Prometheus asks for be told, once the routes are there. */
export interface Monitoring {
  /** `GET /metrics`; below what authenticates. */
  route(app: App): void
}

/**
 * Measures every request of the app by its route, and keeps the numbers of this process and of the platform for Prometheus. Whoever
 * accepts OpenMetrics 1.0 gets it, where times of requests name one of them by its id; others get Prometheus' own text format.
 */
export function measureRequests(app: App, services: Services): Monitoring {
  const openMetrics = new Registry<OpenMetricsContentType>()
  openMetrics.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  collectDefaultMetrics({ register: openMetrics })
  const requests = new Histogram<string>({
    name: 'wrenn_http_request_seconds',
    help: 'Time to answer a request.',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    enableExemplars: true,
    registers: [openMetrics],
  })
  app.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown'
    requests.observe({
      labels: { method: request.method, route, status: reply.statusCode },
      value: reply.elapsedTime / 1000,
      exemplarLabels: { request_id: request.id },
    })
  })
  const look = watchPlatform(openMetrics, services)
  const textFormat = new Registry()
  for (const { name } of openMetrics.getMetricsAsArray()) {
    const metric = openMetrics.getSingleMetric(name)
    if (metric !== undefined) textFormat.registerMetric(metric)
  }
  const route = (authenticated: App): void => {
    const config = { permission: 'platform.read' } as const
    authenticated.get('/metrics', { config, schema: { hide: true } }, async (request, reply) => {
      const acceptsOpenMetrics = /\bapplication\/openmetrics-text\b/i.test(request.headers.accept ?? '')
      const registry = acceptsOpenMetrics ? openMetrics : textFormat
      await look()
      return await reply.type(registry.contentType).send(await registry.metrics())
    })
  }
  return { route }
}
