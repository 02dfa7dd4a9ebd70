/** How spans are written on their way: as protobuf, which OpenTelemetry has for its default, or as JSON. */
export type OtlpEncoding = 'protobuf' | 'json'

/**
 * What the environment says about traces. A setting that we cannot follow is one of OpenTelemetry's for all programs of a machine: it turns
 * traces off and is told, and keeps nobody from starting.
 */
export type TracingConfig =
  | { readonly is: 'off' }
  | { readonly is: 'refused'; readonly reason: string }
  | { readonly is: 'on'; readonly encoding: OtlpEncoding }

const encodings: Readonly<Record<string, OtlpEncoding>> = { 'http/protobuf': 'protobuf', 'http/json': 'json' }

/**
 * Reads whether spans are wanted: `OTEL_TRACES_EXPORTER=otlp` says so, and an endpoint alone does. Everything else about them (headers,
 * sampler, limits, batches) the SDK reads itself, in the form of
 * https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
 */
export function readTracing(env: Readonly<Record<string, string | undefined>>): TracingConfig {
  const read = (...names: readonly string[]): string | undefined =>
    names.map((name) => env[name]?.trim()).find((value) => value !== undefined && value !== '')
  const endpoint = read('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', 'OTEL_EXPORTER_OTLP_ENDPOINT')
  const exporter = read('OTEL_TRACES_EXPORTER') ?? (endpoint === undefined ? 'none' : 'otlp')
  if (read('OTEL_SDK_DISABLED')?.toLowerCase() === 'true' || exporter === 'none') return { is: 'off' }
  if (exporter !== 'otlp') return refused(`OTEL_TRACES_EXPORTER is ${exporter}: only otlp and none are known`)
  if (endpoint !== undefined && !isHttpUrl(endpoint)) return refused('the endpoint is no http:// or https:// address')
  const protocol = read('OTEL_EXPORTER_OTLP_TRACES_PROTOCOL', 'OTEL_EXPORTER_OTLP_PROTOCOL') ?? 'http/protobuf'
  const encoding = encodings[protocol]
  if (encoding !== undefined) return { is: 'on', encoding }
  return refused(`OTEL_EXPORTER_OTLP_PROTOCOL is ${protocol}: only ${Object.keys(encodings).join(' and ')} are known`)
}

function refused(reason: string): TracingConfig {
  return { is: 'refused', reason }
}

function isHttpUrl(text: string): boolean {
  return /^https?:\/\//i.test(text) && URL.canParse(text)
}
